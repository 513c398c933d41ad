"""Judged queries with their vectors, labels and texts: what a search remembers beside its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from xmc.arrays import Embeddings, Ids, Rows
from xmc.cached import cached_property
from xmc.encoders.dual import unit_rows
from xmc.encoders.precision import multiplies_bfloat16
from xmc.errors import InputError, StoreError, boundary
from xmc.indexes.blocks import GrowingColumn
from xmc.indexes.checks import require_matrix
from xmc.indexes.designs import design_of
from xmc.indexes.factory import index_version
from xmc.indexes.library import faiss
from xmc.indexes.scan import score_rows
from xmc.indexes.storage import StoredIndex, read_index, write_index
from xmc.indexes.versions import IndexVersion
from xmc.metrics.propensity import propensities
from xmc.search.memory.screening import GROUPED, lowered, screened_rows
from xmc.storage.arrow import read_columns, write_arrow_file
from xmc.storage.content_hash import ContentHash
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = ["QueryMemory"]

EXACT_BELOW = 4_096
"""Fewer queries are searched exactly."""
PROPENSITY = 0.55, 1.5
"""A and B of the propensities by which votes for rare labels may count more: those of the field for most data sets."""
SCREENED = 500_000
"""Up to this number queries are screened in bfloat16 where the processor multiplies it; more are searched by cells. On
wordnet-8k, 11,313 queries, screening took a fifth of the time of exact search, and lost 4 of 100,000 neighbours."""
SPARE = 10
"""Further neighbours that are looked at, so that queries as near as the last one are told apart by exact products."""
INDEX, QUERIES = "index", "queries.arrow"
MOST_IDS = 1 << 27
"""Label ids below this one are taken however few pairs there are: counts of them take memory for each id up to the largest."""


@dataclass(frozen=True, eq=False)
class QueryMemory:
    """N judged queries at one moment. It never changes; `append` makes a longer one, which shares its memory.

    held: an index over their vectors, row by row. ends: int64 [N], where the labels of each query end in `ids`. ids: int64,
    the ids of labels that were judged true, which stay those of a label when labels change. texts: strings [N].
    encoder: names what made the vectors; "" for the run's own encoder. screened: whether products in bfloat16
    choose which vectors are compared exactly, on processors that multiply it.
    """

    held: IndexVersion
    ends: GrowingColumn
    ids: GrowingColumn
    texts: pa.ChunkedArray
    encoder: str = ""
    screened: bool = False

    @classmethod
    def from_lists(
        cls, embeddings: Embeddings, ids: Sequence[Ids], texts: Sequence[str], encoder: str = "", index: str = "auto"
    ) -> QueryMemory:
        """Queries with vectors float32 [N, D], the ids of their labels and their texts.

        index: a design by name, as of `build_index`; "auto": exact search of few queries; of many, by products in bfloat16
            first where the processor multiplies it, else by cells where FAISS is installed.
        Raises InputError for numbers that differ, and vectors that are NaN or infinite.
        """
        columns = _checked(embeddings, ids, texts, embeddings.shape[1])
        screened = index == "auto" and _is_screened(len(texts))
        name = _design(len(texts)) if index == "auto" else index
        held = index_version(name, columns[0], embeddings[:0])
        ends, listed = np.cumsum(columns[1]), columns[2]
        return cls(held, GrowingColumn(ends), GrowingColumn(listed), pa.chunked_array([columns[3]]), encoder, screened)

    def append(self, embeddings: Embeddings, ids: Sequence[Ids], texts: Sequence[str]) -> QueryMemory:
        """With more queries; see `from_lists`."""
        embeddings, lengths, listed, added = _checked(embeddings, ids, texts, self.held.dimension)
        if not len(added):
            return self
        ends = self.ends.append(np.cumsum(lengths) + len(self.ids))
        chunks = pa.chunked_array([*self.texts.chunks, added])
        return replace(self, held=self.held.append(embeddings), ends=ends, ids=self.ids.append(listed), texts=chunks)

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ends)

    def __repr__(self) -> str:
        """Number of queries, of pairs, dimension and index."""
        return f"<{type(self).__name__}: {self.describe()}>"

    def describe(self) -> str:
        """Number of queries and of pairs, dimension, index and encoder, in words."""
        held = self.held
        encoder = "the run's own encoder" if not self.encoder else "another encoder"
        sizes = f"{len(self):,} queries with {len(self.ids):,} labels"
        return f"{sizes}, dimension {held.dimension} of {encoder}, index {held.design.name}"

    @cached_property
    def starts(self) -> Rows:
        """Where the labels of each query begin in `ids`, int64 [N]."""
        return np.concatenate([np.zeros(1, np.int64), self.ends.values[:-1]])[: len(self)]

    @cached_property
    def propensities(self) -> npt.NDArray[np.float64]:
        """How likely a pair with each label id was to be judged, float64 [largest id + 1]: small for rare labels."""
        counts = np.bincount(self.ids.values, minlength=1).astype(np.int64)
        return propensities(np.minimum(counts, len(self)), max(1, len(self)), *PROPENSITY)

    @cached_property
    def fingerprint(self) -> str:
        """Of texts, labels and encoder, in their order."""
        content = ContentHash()
        content.update(pa.table({"text": self.texts, "end": self.ends.values}))
        content.update(pa.table({"id": self.ids.values}))
        return fingerprint_of_json([self.encoder, content.hexdigest()])

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes in main memory: of vectors, of labels and of texts."""
        vectors = (6 if self.screened else 4) * self.held.dimension * len(self)
        return {"vectors": vectors, "labels": 8 * (len(self.ids) + len(self)), "texts": self.texts.nbytes}

    def lists(self) -> list[Ids]:
        """The ids of each query's labels."""
        return np.split(self.ids.values, self.ends.values[:-1]) if len(self) else []

    def texts_at(self, rows: Rows) -> list[str]:
        """The texts of some queries."""
        return [text or "" for text in self.texts.take(pa.array(rows)).to_pylist()]

    def nearest(self, queries: Embeddings, k: int) -> tuple[npt.NDArray[np.float64], Rows]:
        """The k nearest queries of each of n vectors: similarities float64 [n, k], and rows [n, k], nearest first.

        -inf and -1 where there are fewer. Similarities are float32 products, summed in one order whatever else is asked.
        InputError for vectors of another dimension.
        """
        count = k + SPARE
        if self.screened and len(self) >= GROUPED * count and multiplies_bfloat16(torch.device("cpu")):
            rows = screened_rows(
                require_matrix(queries, self.held.dimension, "queries"), self._lowered, count, len(self)
            )
        else:
            _, rows = self.held.search(queries, count)
        similarities = score_rows(queries, self.held.blocks, rows)
        order = np.lexsort((rows, -similarities), axis=1)[:, :k]
        return np.take_along_axis(similarities, order, 1).astype(np.float64), np.take_along_axis(rows, order, 1)

    def exact(self) -> QueryMemory:
        """The same queries, all compared at each search."""
        return replace(self, held=self.held.with_design(design_of("exact", self.held.dimension)), screened=False)

    def cut(self, dimension: int, normalize: bool) -> QueryMemory:
        """With vectors cut to their first numbers, where they are of the run's own encoder."""
        if self.encoder:
            return self
        cut = np.array(self.held.embeddings[:, :dimension])
        held = index_version(_design(len(self)), unit_rows(cut) if normalize else cut, cut[:0])
        return replace(self, held=held)

    @cached_property
    def _lowered(self) -> torch.Tensor:
        return lowered(self.held.embeddings)

    def save(self, directory: Path, source: str) -> None:
        """Write into a new directory. source: names the model of the run that the memory belongs to."""
        directory.mkdir()
        write_index(directory / INDEX, StoredIndex(self.held, np.arange(len(self))), source)
        lists = pa.ListArray.from_arrays(
            pa.array(np.concatenate([np.zeros(1, np.int64), self.ends.values]), pa.int32()), pa.array(self.ids.values)
        )
        table = pa.table({"text": self.texts, "labels": lists})
        write_arrow_file(
            table.replace_schema_metadata({"encoder": self.encoder, "screened": "yes" if self.screened else ""}),
            directory / QUERIES,
        )

    @classmethod
    def read(cls, directory: Path, source: str, device: str | Sequence[str] = "auto") -> QueryMemory:
        """What `save` wrote for the same model. StoreError where it is of another, or cannot be read."""
        stored = read_index(directory / INDEX, source, device)
        what = f"{directory / QUERIES} cannot be read as a memory of queries"
        with boundary(StoreError, what):
            table = read_columns(directory / QUERIES, what=what)
            texts, lists = table["text"].cast(pa.string()), table["labels"].combine_chunks()
            said = table.schema.metadata or {}
            encoder, screened = said.get(b"encoder", b"").decode(), bool(said.get(b"screened"))
            ends = lists.offsets.to_numpy()[1:].astype(np.int64)
            ids = lists.values.to_numpy(zero_copy_only=False).astype(np.int64)
        largest = max(MOST_IDS, 16 * len(ids))
        if len(ids) and not 0 <= ids.min() <= ids.max() < largest:
            raise StoreError(
                f"{directory / QUERIES} has label ids from {ids.min()} to {ids.max()}; those of {len(ids):,} pairs are below "
                f"{largest:,}."
            )
        if len(stored.ids) != len(table):
            raise StoreError(
                f"{directory} has {len(stored.ids):,} vectors for {len(table):,} queries: it holds parts of two memories."
            )
        return cls(stored.held, GrowingColumn(ends), GrowingColumn(ids), texts, encoder, screened)


def _design(count: int) -> str:
    """The index of a memory of this number of queries."""
    if faiss is None or count < EXACT_BELOW or _is_screened(count):
        return "exact"
    return f"IVF{2 ** math.ceil(math.log2(math.sqrt(count)))},Flat"


def _is_screened(count: int) -> bool:
    return EXACT_BELOW <= count <= SCREENED and multiplies_bfloat16(torch.device("cpu"))


def _checked(
    embeddings: Embeddings, ids: Sequence[Ids], texts: Sequence[str], dimension: int
) -> tuple[Embeddings, Rows, Ids, pa.Array]:
    """Vectors, the number of labels of each query, all of their ids, and texts."""
    embeddings = require_matrix(embeddings, dimension, "vectors of remembered queries")
    if not len(embeddings) == len(ids) == len(texts):
        raise InputError(
            f"A memory needs a vector and labels for each query, but there are {len(embeddings)} vectors and {len(ids)} lists "
            f"of labels for {len(texts)} texts."
        )
    lengths = np.array([len(listed) for listed in ids], np.int64)
    listed = np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64)
    return embeddings, lengths, listed, pa.array(texts, pa.string())
