"""Label vectors by another encoder, in half precision, which follow labels that are added or get another text."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.arrays import Ids, Mask, Rows
from xmc.errors import StoreError, boundary
from xmc.kernels.forks import renew_in_children
from xmc.search.label_columns import values_at
from xmc.search.labels import LabelVersion
from xmc.search.other_encoder import OtherEncoder
from xmc.storage.arrow import read_columns, write_arrow_file

__all__ = ["EncodedLabels"]


MOST_IDS = 1 << 27
"""Label ids below this one are taken however few labels there are: their places take memory for each id up to the largest."""


@dataclass(frozen=True)
class _Encoded:
    """Labels that are encoded. slots: int64 [ids], the place of each label id in the others, -1 for none.

    ids: int64 [n]. texts: Arrow strings [n], what is encoded. vectors: float16 [n, D].
    """

    slots: Rows
    ids: Ids
    texts: pa.Array
    vectors: npt.NDArray[np.float16]

    @classmethod
    def from_parts(cls, ids: Ids, texts: pa.Array, vectors: npt.NDArray[np.float16]) -> _Encoded:
        """The later one counts where an id comes twice."""
        slots = np.full(int(ids.max(initial=-1)) + 1, -1)
        slots[ids] = np.arange(len(ids))
        return cls(slots, ids, texts, vectors)

    def find(self, ids: Ids, texts: pa.Array) -> tuple[Rows, Mask]:
        """The slots of labels [n], and which of them are there with this text."""
        slots = np.where(ids < len(self.slots), self.slots[np.minimum(ids, len(self.slots) - 1)], -1)
        same = slots >= 0
        same[same] = pc.equal(self.texts.take(pa.array(slots[same])), texts.filter(pa.array(same))).to_numpy(False)
        return slots, same

    def with_more(self, ids: Ids, texts: pa.Array, vectors: npt.NDArray[np.float16]) -> _Encoded:
        """With further labels; an earlier vector of the same label is dropped."""
        kept = ~np.isin(self.ids, ids)
        joined = pa.concat_arrays([self.texts.filter(pa.array(kept)), texts])
        return self.from_parts(np.append(self.ids[kept], ids), joined, np.concatenate([self.vectors[kept], vectors]))


class EncodedLabels:
    """A vector of each label, found by its id and the text that it was made from.

    A label that has none, or another text since, is encoded when it is first looked for. Any number of threads may look.
    """

    def __init__(self, encoder: OtherEncoder, ids: Ids, texts: pa.Array, vectors: npt.NDArray[np.float16]) -> None:
        """ids: int64 [n] of labels, not empty. texts: Arrow strings [n]. vectors: [n, D]."""
        self.encoder, self._encoded = encoder, _Encoded.from_parts(ids, texts, vectors)
        self.renew_locks()
        renew_in_children(self)

    def renew_locks(self) -> None:
        """See xmc.kernels.forks.Renewable."""
        self._changing = threading.Lock()

    @classmethod
    def from_labels(cls, encoder: OtherEncoder, labels: LabelVersion) -> EncodedLabels:
        """All labels of a version."""
        texts = pc.fill_null(labels.texts, "").combine_chunks()
        return cls(encoder, labels.ids, texts, _vectors(encoder, texts))

    @classmethod
    def load(cls, encoder: OtherEncoder, file: Path) -> EncodedLabels:
        """What `save` wrote, memory-mapped. StoreError where it cannot be read."""
        what = f"{file} cannot be read as vectors of labels"
        with boundary(StoreError, what):
            table = read_columns(file, what=what).combine_chunks()
            texts, vectors = (table[name].combine_chunks() for name in ("text", "vector"))
            ids, values = table["id"].to_numpy(), vectors.flatten().to_numpy(zero_copy_only=True)
            if ids.dtype != np.int64 or values.dtype != np.float16 or not pa.types.is_string(texts.type):
                raise ValueError(f"it has columns of {ids.dtype}, {texts.type} and vectors of {values.dtype}")
            if len(ids) and not 0 <= ids.min() <= ids.max() < max(MOST_IDS, 16 * len(ids)):
                raise ValueError(f"it has label ids from {ids.min()} to {ids.max()} of {len(ids)} labels")
            return cls(encoder, ids, texts, values.reshape(len(table), vectors.type.list_size))

    def save(self, file: Path) -> None:
        """Write an Arrow file: id int64, text string, vector fixed-size list of float16 [D]."""
        encoded = self._encoded
        flat = pa.array(np.ascontiguousarray(encoded.vectors).ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, encoded.vectors.shape[1])
        write_arrow_file(pa.table({"id": encoded.ids, "text": encoded.texts, "vector": vectors}), file)

    def vectors_of(self, labels: LabelVersion, ids: Ids) -> npt.NDArray[np.float16]:
        """The vectors of labels of a version, float16 [n, D]. ids: int64 [n], each once, all of them there."""
        texts = pc.fill_null(values_at(labels.everything["text"], labels.index_rows_of_ids(ids)), "")
        slots, there = self._encoded.find(ids, texts)
        encoded = self._encoded if there.all() else self._with(ids[~there], texts.filter(pa.array(~there)))
        slots, _ = encoded.find(ids, texts)
        return encoded.vectors[slots]

    def _with(self, ids: Ids, texts: pa.Array) -> _Encoded:
        vectors = _vectors(self.encoder, texts)
        with self._changing:
            self._encoded = self._encoded.with_more(ids, texts, vectors)
            return self._encoded


def _vectors(encoder: OtherEncoder, texts: pa.Array) -> npt.NDArray[np.float16]:
    return encoder.embed_labels(texts.to_pylist()).astype(np.float16)
