"""The library call of a static run without torch: texts in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Rows
from xmc.encoders.static.formulas import scrambled
from xmc.errors import InputError
from xmc.indexes.checks import require_count
from xmc.light.features import bags_of_features
from xmc.light.scoring import best_rows

if TYPE_CHECKING:
    from xmc.light.files import LightRun  # which loads pyarrow: `load` does so, importing this module does not

__all__ = ["LightRetriever"]

TEXTS_TOGETHER = 32
"""Number of texts that are answered together."""
ROWS_TOGETHER = 512
"""Number of rows of the table that are in memory together at most."""


class LightRetriever:
    """A static run that answers with its labels and scores, and loads neither torch nor numba nor transformers.

    Labels are those of `xmc.Retriever.load(run).exact()`, and scores equal up to the rounding of float32. What is large stays
    on disk: of the table of features the rows that a text needs are read, and label embeddings some at a time; the system
    keeps files that are read often in its cache, which processes share. Any number of threads may predict. Another
    run in its place is not taken over: files stay open.
    """

    def __init__(self, run: LightRun, directory: Path) -> None:
        """Use `load`."""
        self._run, self.directory = run, directory

    @classmethod
    def load(cls, directory: str | Path, verify: bool = True) -> LightRetriever:
        """Read a run directory, verifying every file against its checksum.

        verify: False takes files as they are, which saves reading the table once.
        Raises StoreError, which names a file that does not fit, and InputError for a run that needs more than numpy: one with
        another encoder than the static one, with a memory, or with further stages of search.
        """
        from xmc.light.files import read_run

        directory = Path(directory)
        return cls(read_run(directory, verify), directory)

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._run.uids)

    def __repr__(self) -> str:
        """Number of labels, dimension, and where the run is."""
        return f"<{type(self).__name__}: {len(self):,} labels, dimension {self.dimension}; {self.directory}>"

    @property
    def dimension(self) -> int:
        """Length D of an embedding."""
        return int(self._run.blocks[0].shape[1])

    def predict(
        self, queries: Sequence[str], k: int = 10, *, allow_empty: bool = False
    ) -> tuple[npt.NDArray[np.object_], Embeddings]:
        """The k best labels of each text.

        Returns label uids [n, k'] (str) and scores [n, k'] (float32), best first, k' = min(k, labels).
        Raises InputError for k < 0, one bare string, a set, what is no text, and an empty text, unless `allow_empty` is set.
        """
        from xmc.light.files import query_texts, values_at

        count = min(require_count(k, "k"), len(self))
        texts = query_texts(queries, allow_empty)
        scores, rows = np.empty((len(texts), count), np.float32), np.empty((len(texts), count), np.int64)
        for here in _parts(len(texts)):
            scores[here], rows[here] = best_rows(self._embedded(texts[here]), self._run.blocks, count, self._run.living)
        uids = np.empty(rows.shape, object)
        uids.ravel()[:] = values_at(self._run.uids, rows.ravel())
        return uids, scores

    def embed_queries(self, queries: Sequence[str], *, allow_empty: bool = True) -> Embeddings:
        """Embeddings float32 [n, D] of texts: of unit length where the model normalises. Errors as of `predict`."""
        from xmc.light.files import query_texts

        texts = query_texts(queries, allow_empty)
        embeddings = np.empty((len(texts), self.dimension), np.float32)
        for here in _parts(len(texts)):
            embeddings[here] = self._embedded(texts[here])
        return embeddings

    def label_texts(self, uids: Sequence[str]) -> list[str]:
        """The texts of labels; InputError for a uid that is not there."""
        from xmc.light.files import values_at

        known = {uid: row for row, uid in enumerate(self._run.uids.to_pylist())}
        for uid in uids:
            if uid not in known:
                raise InputError(f"There is no label {uid!r} in this run.")
        rows = np.array([known[uid] for uid in uids], np.int64)
        return [text or "" for text in values_at(self._run.texts, rows)]

    def _embedded(self, texts: list[str]) -> Embeddings:
        """Embeddings [n, D] of texts, all at once."""
        from xmc.light.files import normalised_texts

        run = self._run
        features, ends = bags_of_features(*normalised_texts(texts))
        seeds = np.array([0, 1], np.uint64)
        slots = scrambled(features, seeds[:1]) % np.uint64(len(run.weights))
        rows = (scrambled(features, seeds[1:]) % np.uint64(run.vectors.shape[0])).astype(np.int64)
        coefficients = run.scales[features & np.uint64(len(run.scales) - 1)] * run.weights[slots]
        sums = self._unit(self._sums(rows, coefficients, ends))
        return sums if run.served is None else self._unit(sums[:, : run.served])

    def _sums(self, rows: Rows, coefficients: Embeddings, ends: Rows) -> Embeddings:
        """The weighted sum [n, D] of the table's rows of each text, which lie between its ends; each row is read once."""
        different, places = np.unique(rows, return_inverse=True)
        sums = np.zeros((len(ends) - 1, self._run.vectors.shape[1]), np.float32)
        for first in range(0, len(different), ROWS_TOGETHER):
            vectors = self._run.vectors.rows(different[first : first + ROWS_TOGETHER])
            for text in range(len(sums)):
                here = slice(ends[text], ends[text + 1])
                place = places[here] - first
                inside = (place >= 0) & (place < len(vectors))
                sums[text] += coefficients[here][inside] @ vectors[place[inside]]
        return sums

    def _unit(self, vectors: Embeddings) -> Embeddings:
        if not self._run.normalize:
            return np.ascontiguousarray(vectors)
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
        unit: Embeddings = vectors / np.where(norms == 0, np.float32(1), norms)
        return unit


def _parts(count: int) -> list[slice]:
    return [slice(start, start + TEXTS_TOGETHER) for start in range(0, count, TEXTS_TOGETHER)]
