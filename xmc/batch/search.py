"""The search of a job: in the worker's own index, or in labels that are split between actors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.calibration.calibration import Calibration
from xmc.encoders.dual import DualEncoder
from xmc.indexes.factory import build_index
from xmc.indexes.sharding import merge_shards
from xmc.search.filters import matching
from xmc.search.labels import LabelTable
from xmc.search.placement import place_model
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory

__all__ = ["Embeddings", "Ids", "LabelSearch", "LabelShard", "load_model", "load_search"]

Embeddings = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
ALIGNED = 1_024
"""Shards begin at multiples of so many labels, so that FAISS multiplies the same tiles as it does with all labels in one."""
FEW_QUERIES = 16
"""Fewer queries than so are searched together with copies: alone FAISS would sum in another order, which depends on threads."""


@dataclass(frozen=True)
class LabelSearch:
    """A model, its labels, and the k best of these for some query embeddings: ids and scores [n, k], -1 for none.

    calibration: of this search; None for a run without, and where it was not asked for.
    """

    model: DualEncoder
    labels: LabelTable
    search: Callable[[Embeddings, int], tuple[Ids, Embeddings]]
    calibration: Calibration | None


def load_search(run: str, where: str | None, shards: tuple[Any, ...], calibrated: bool = False) -> LabelSearch:
    """The run's model, on the GPU where there is one, with its own index, or with the Ray actors that hold its labels.

    calibrated: with what the run's calibration knows, which is of its own index over all labels. Logs a warning where labels
        or index were changed after it.
    Raises StoreError for a run that cannot be read, InputError for a condition that does not fit the labels.
    """
    search: Callable[[Embeddings, int], tuple[Ids, Embeddings]]
    calibration = None
    if shards:
        model, labels = load_model(Path(run))
        allowed = None if where is None else labels.ids[matching(labels, where)]
        search = partial(_search_shards, shards, allowed)
    else:
        retriever = Retriever.load(run)
        model, labels = retriever.model, retriever.labels
        search = partial(retriever.search, include=None if where is None else matching(labels, where))
        calibration = retriever.calibration if calibrated else None
        if calibration is not None:
            retriever.fits_calibration()

    def alike(queries: Embeddings, k: int) -> tuple[Ids, Embeddings]:
        if not 0 < len(queries) < FEW_QUERIES:
            return search(queries, k)
        ids, scores = search(np.resize(queries, (FEW_QUERIES, queries.shape[1])), k)
        return ids[: len(queries)], scores[: len(queries)]

    return LabelSearch(model, labels, alike, calibration)


def load_model(run: Path) -> tuple[DualEncoder, LabelTable]:
    """A run's model, on the GPU where there is one, and its labels, without an index. StoreError where it cannot be read."""
    model, labels = RunDirectory(run).read_model_and_labels()
    place_model(model.eval())
    return model, labels


class LabelShard:
    """One of several parts of a run's labels, searched exactly. Their embeddings are memory-mapped, and no others."""

    def __init__(self, run: str, number: int, count: int) -> None:
        embeddings, ids, alive = RunDirectory(run).read_label_embeddings()
        tiles = -(-len(ids) // ALIGNED)
        rows = np.arange(tiles * number // count * ALIGNED, min(len(ids), tiles * (number + 1) // count * ALIGNED))
        rows = rows[alive[rows]]
        whole = len(rows) and len(rows) == rows[-1] + 1 - rows[0]
        own = embeddings.joined()[rows[0] : rows[-1] + 1] if whole else embeddings.take(rows)
        self._index = build_index("exact", embeddings.dimension, device="cpu")
        self._index.build(own, ids[rows])

    def ready(self) -> int:
        """How many labels it has."""
        return len(self._index)

    def search(self, queries: Embeddings, k: int, ids: Ids | None) -> tuple[Ids, Embeddings]:
        """The k best of its labels, of those with the given ids where these are not None."""
        found, scores = self._index.search(queries, k, include=ids)
        return np.asarray(found, np.int64), scores


def _search_shards(shards: tuple[Any, ...], ids: Ids | None, queries: Embeddings, k: int) -> tuple[Ids, Embeddings]:
    import ray  # where there are shards, Ray is running

    given, allowed = ray.put(queries), ray.put(ids)
    found, scores = merge_shards(ray.get([shard.search.remote(given, k, allowed) for shard in shards]), k)
    return np.asarray(found, np.int64), scores
