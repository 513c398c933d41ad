"""The library call: texts in, labels out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.errors import InputError, StoreError
from xmc.indexes.base import LabelIndex
from xmc.indexes.factory import build_index, load_index
from xmc.store import atomic_directory, read_manifest

__all__ = ["Retriever"]

Embeddings = npt.NDArray[np.float32]


@dataclass
class LabelTable:
    """The labels of a retriever: an id that never changes (the index's), the user's uid, and the text, by row.

    next_id: above all ids that were ever given, so that no id comes to mean another label.
    """

    ids: npt.NDArray[np.int64]
    uids: npt.NDArray[np.object_]
    texts: npt.NDArray[np.object_]
    next_id: int
    rows: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = np.full(self.next_id, -1, np.int64)
        self.rows[self.ids] = np.arange(len(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> LabelTable:
        """The table of some rows."""
        return LabelTable(self.ids[rows], self.uids[rows], self.texts[rows], self.next_id)

    def append(self, uids: Sequence[str], texts: Sequence[str]) -> LabelTable:
        """The table with new labels, under new ids."""
        end = self.next_id + len(uids)
        return LabelTable(
            np.concatenate([self.ids, np.arange(self.next_id, end)]),
            np.concatenate([self.uids, _objects(uids)]),
            np.concatenate([self.texts, _objects(texts)]),
            end,
        )


class Retriever:
    """A trained model with its labels and their index: `predict` gives the best labels of each text.

    Label embeddings are the ones of training (with residual vectors); labels added later are encoded from their text.
    """

    def __init__(
        self,
        model: DualEncoder,
        labels: LabelTable,
        index: LabelIndex,
        config: TrainConfig,
        metrics: dict[str, Any],
    ) -> None:
        self.model = model.eval()
        self.labels, self.index = labels, index
        self.config, self.metrics = config, metrics

    @classmethod
    def from_model(
        cls,
        model: DualEncoder,
        uids: Sequence[str],
        texts: Sequence[str],
        config: TrainConfig,
        index: str = "",
        embeddings: Embeddings | None = None,
    ) -> Retriever:
        """Index the labels of training, in their order; `index` overrides the configuration's.

        embeddings: theirs, float32 [L, D], with residual vectors, where they are known already; else they are embedded.
        """
        model.eval()
        if embeddings is None:
            embeddings = model.embed_labels(texts, with_vectors=True)
        labels = LabelTable(np.arange(len(texts)), _objects(uids), _objects(texts), next_id=len(texts))
        built = build_index(index or config.index, embeddings.shape[1])
        built.build(embeddings, labels.ids)
        return cls(model, labels, built, config, {})

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def embeddings(self) -> Embeddings:
        """Label embeddings float32 [L, D], in the order of `labels`; the index holds them."""
        return self.index.embeddings

    def predict(
        self, queries: Sequence[str] | Embeddings, k: int = 10
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float32]]:
        """The k best labels of each query.

        queries: texts, or query embeddings [n, D] as from `embed_queries`.
        Returns label uids [n, k'] (str) and scores [n, k'] (float32, cosine similarity), best first, k' = min(k, labels).
        Raises InputError for k < 0, one bare string, or embeddings of another dimension.
        """
        ids, scores = self.search(queries, k)
        uids = np.full(ids.shape, None, object)
        uids[ids >= 0] = self.labels.uids[self.labels.rows[ids[ids >= 0]]]
        return uids, scores

    def search(
        self, queries: Sequence[str] | Embeddings, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """As `predict`, with the labels' int64 ids: for the labels of training, their row in the data set."""
        given: Any = queries
        texts = not isinstance(given, np.ndarray) or given.dtype.kind in "OU"
        embeddings = self.embed_queries(given) if texts else given
        if embeddings.ndim != 2 or embeddings.shape[1] != self.model.dimension:
            raise InputError(
                f"Query embeddings must have the shape (n, {self.model.dimension}), but have {embeddings.shape}."
            )
        ids, scores = self.index.search(np.ascontiguousarray(embeddings, np.float32), k)
        return np.asarray(ids, np.int64), scores

    def embed_queries(self, texts: Sequence[str]) -> Embeddings:
        """Unit embeddings [n, D] of query texts."""
        if isinstance(texts, str):
            raise InputError("queries must be a list of texts; put a single text into a list.")
        return self.model.embed_queries(list(texts))

    def texts(self, uids: Sequence[str]) -> list[str]:
        """The texts of labels; InputError names a uid that is not there."""
        return [str(self.labels.texts[row]) for row in self._rows(uids)]

    def add_labels(self, texts: Sequence[str], uids: Sequence[str] | None = None) -> None:
        """Add labels by their text; their uid is the text itself unless given. InputError for a uid already there."""
        if isinstance(texts, str):
            raise InputError("texts must be a list of label texts; put a single text into a list.")
        uids = list(texts if uids is None else uids)
        if len(uids) != len(texts):
            raise InputError(f"{len(uids)} uids were given for {len(texts)} label texts.")
        taken = set(self.labels.uids)
        for uid in uids:
            if uid in taken:
                raise InputError(f"The label {uid!r} is already there; remove it first, or give another uid.")
            taken.add(uid)
        embeddings = self.model.embed_labels(list(texts))
        labels = self.labels.append(uids, texts)
        self.index.add(embeddings, labels.ids[len(self.labels) :])
        self.labels = labels

    def remove_labels(self, uids: Sequence[str]) -> None:
        """Remove labels; InputError names a uid that is not there."""
        rows = self._rows(uids)
        self.index.remove(self.labels.ids[rows])
        kept = np.ones(len(self.labels), bool)
        kept[rows] = False
        self.labels = self.labels.select(kept)

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Write the run directory: whole or not at all.

        Raises StoreError when `directory` holds something that is not a run, or a run and `overwrite` is not set.
        """
        directory = Path(directory)
        if not overwrite and (directory / "manifest.json").exists():
            raise StoreError(f"{directory} already holds a run; name another directory, or overwrite it explicitly.")
        properties = {"labels": len(self), "dimension": self.model.dimension, "seed": self.config.seed}
        properties["next_label_id"] = self.labels.next_id
        with atomic_directory(directory, "run", **properties) as temporary:
            (temporary / "config.yaml").write_text(self.config.to_yaml(), encoding="utf-8")
            (temporary / "metrics.json").write_text(json.dumps(self.metrics, indent=2) + "\n", encoding="utf-8")
            self.model.save(temporary)
            table = pa.table({"id": self.labels.ids, "uid": list(self.labels.uids), "text": list(self.labels.texts)})
            pq.write_table(table, temporary / "labels.parquet", compression="zstd")
            self.index.save(temporary / "index")

    @classmethod
    def load(cls, directory: str | Path) -> Retriever:
        """Read a run directory, verifying every file against its checksum; StoreError names a file that does not fit."""
        directory = Path(directory)
        properties = read_manifest(directory, "run")["properties"]
        try:
            values = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
            metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
            table = pq.read_table(directory / "labels.parquet")
            labels = LabelTable(
                table["id"].to_numpy(),
                _objects(table["uid"].to_pylist()),
                _objects(table["text"].to_pylist()),
                int(properties["next_label_id"]),
            )
        except (OSError, ValueError, KeyError, IndexError, yaml.YAMLError, pa.ArrowException) as error:
            raise StoreError(f"The run {directory} cannot be read: {error}") from error
        config = TrainConfig.from_mapping(values, source=str(directory / "config.yaml"))
        model, index = DualEncoder.load(directory), load_index(directory / "index")
        if index.dimension != model.dimension or not np.array_equal(index.ids, labels.ids):
            raise StoreError(
                f"The index of the run {directory} does not belong to it: {len(index)} labels of dimension "
                f"{index.dimension}, where the run has {len(labels)} of dimension {model.dimension}."
            )
        return cls(model, labels, index, config, metrics)

    def _rows(self, uids: Sequence[str]) -> list[int]:
        if isinstance(uids, str):
            raise InputError("uids must be a list; put a single uid into a list.")
        position = {uid: row for row, uid in enumerate(self.labels.uids)}
        missing = [uid for uid in uids if uid not in position]
        if missing:
            raise InputError(f"There is no label {missing[0]!r} in this retriever ({len(missing)} not found).")
        return [position[uid] for uid in uids]


def _objects(values: Sequence[str]) -> npt.NDArray[np.object_]:
    out = np.empty(len(values), object)
    out[:] = list(values)
    return out
