"""The search of a job: the stages of a run, by its own index, or by labels that are split between actors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xmc.arrays import Embeddings, Ids
from xmc.batch.work import of_run
from xmc.calibration.calibration import Calibration, require_calibration
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder
from xmc.indexes.factory import build_index
from xmc.indexes.scan import score_rows
from xmc.indexes.sharding import merge_shards
from xmc.search.filters import matching
from xmc.search.labels import LabelVersion
from xmc.search.passages import PassageOptions
from xmc.search.placement import place_model
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory
from xmc.search.stages import CandidateSearch, Corridor, SearchRequest, SearchState

__all__ = ["JobSearch", "SearchActor", "load_model", "load_search"]

ALIGNED = 1_024
"""Shards begin at multiples of this number of labels, so that FAISS multiplies the same tiles as for all labels in one."""
FEW_QUERIES = 16
"""Fewer queries are searched together with copies: alone FAISS would sum in another order, which depends on threads."""


@dataclass(frozen=True)
class JobSearch:
    """A model with its labels, and the stages by which they are searched.

    labels: with their index; without where actors hold it. request: what each row is asked.
    calibration: of this search; None for a run without, and where it was not asked for.
    """

    model: DualEncoder
    labels: LabelVersion
    corridor: Corridor
    request: SearchRequest
    calibration: Calibration | None

    def with_passages(self, passages: PassageOptions | None) -> JobSearch:
        """The same search, of texts that are cut into passages; None for whole texts."""
        return replace(self, request=replace(self.request, passages=passages))

    def begin(self, queries: Any, features: RaggedTokens | None) -> SearchState:
        """The state of some rows before the first stage. features: what the encoder makes of texts; None for embeddings."""
        return replace(self.corridor.begin(self.request, self.labels, queries), features=features)


def load_search(
    run: str,
    k: int,
    where: str | None,
    shards: tuple[Any, ...],
    calibrated: bool = False,
    rerank: bool | None = None,
    device: str | tuple[str, ...] = "auto",
) -> JobSearch:
    """A run's model, on a device as of Retriever.load, with its own index, or with the Ray actors that hold its labels.

    k: number of labels of each row; with `calibrated` all candidates of the calibration are searched for in their place.
    calibrated: with the run's calibration, which is about its own index over all labels. Logs a warning where labels or
        index were changed after it.
    rerank: as of Retriever.predict.
    Raises StoreError for a run that cannot be read, InputError for a condition that does not fit the labels, for a re-ranker
    that is demanded and missing, and for a calibration that is missing, or was made for other stages.
    """
    if shards:
        model, labels, stages = RunDirectory(run).read_model_and_labels()
        allowed = None if where is None else matching(labels, where)
        ids = None if allowed is None else labels.ids[allowed]
        request = SearchRequest(k, include=allowed, rerank=rerank)
        corridor = Corridor.for_model(model, stages).asked(request).replaced(_SteadySearch(_SearchActors(shards, ids)))
        place_model(model, device, RunDirectory(run).precision)
        return JobSearch(model, labels, corridor, request, None)
    retriever = Retriever.load(run, device)
    model, labels = retriever.model, retriever.labels
    calibration = None
    if calibrated:
        calibration = require_calibration(retriever.calibration, f"The run {run}")
        retriever.fits_calibration()
        k = calibration.candidates
    request = SearchRequest(k, include=None if where is None else matching(labels, where), rerank=rerank)
    candidates = retriever.corridor["candidates"]
    assert isinstance(candidates, CandidateSearch)
    corridor = retriever.corridor.asked(request).replaced(_SteadySearch(candidates))
    return JobSearch(model, labels, corridor, request, calibration)


def load_model(run: str, device: str | tuple[str, ...] = "auto") -> DualEncoder:
    """A run's model, on a device as of Retriever.load. StoreError where the run cannot be read."""
    model, _, _ = RunDirectory(run).read_model_and_labels()
    place_model(model, device, RunDirectory(run).precision)
    return model


class SearchActor:
    """One of several parts of the labels of the run with a fingerprint, searched exactly. Their embeddings are memory-mapped,
    and no others.
    """

    def __init__(self, run: str, fingerprint: str, number: int, count: int) -> None:
        embeddings, ids, alive = of_run(run, fingerprint, RunDirectory(run).read_label_embeddings)
        tiles = -(-len(ids) // ALIGNED)
        rows = np.arange(tiles * number // count * ALIGNED, min(len(ids), tiles * (number + 1) // count * ALIGNED))
        rows = rows[alive[rows]]
        contiguous = len(rows) and len(rows) == rows[-1] + 1 - rows[0]
        vectors = embeddings.joined()[rows[0] : rows[-1] + 1] if contiguous else embeddings.take(rows)
        self._index = build_index("exact", embeddings.dimension, device="cpu")
        self._index.build(vectors, ids[rows])

    def ready(self) -> int:
        """Number of labels that it has."""
        return len(self._index)

    def search(self, queries: Embeddings, k: int, ids: Ids | None) -> tuple[Ids, Embeddings]:
        """The k best of its labels; where `ids` are given, of the labels with these ids alone."""
        found, scores = self._index.search(queries, k, include=ids)
        return np.asarray(found, np.int64), scores

    def scores(self, queries: Embeddings, ids: Ids) -> Embeddings:
        """The exact scores of queries [n, D] with labels of these ids [n, m]; -inf for those that it does not have."""
        snapshot = self._index.snapshot()
        return score_rows(queries, snapshot.held.blocks, snapshot.rows(ids.ravel()).reshape(ids.shape))


class _SearchActors(CandidateSearch):
    """Embeddings to the best labels of all actors. allowed: ids that alone may be returned; None for all."""

    def __init__(self, actors: tuple[Any, ...], allowed: Ids | None) -> None:
        self._actors, self._allowed = actors, allowed

    def search(self, state: SearchState) -> SearchState:
        import ray  # where there are actors, Ray is running

        queries, allowed = ray.put(state.encoded()), ray.put(self._allowed)
        answers = ray.get([actor.search.remote(queries, state.wanted, allowed) for actor in self._actors])
        found, scores = merge_shards(answers, state.wanted)
        ids = np.asarray(found, np.int64)
        return replace(state, ids=ids, scores=scores, allowed_ids=ids, scorer=self._scores)

    def _scores(self, queries: Embeddings, ids: Ids) -> Embeddings:
        """Each label is of one actor, and scores -inf in all others."""
        import ray

        given = ray.put(queries), ray.put(ids)
        scores: Embeddings = np.maximum.reduce(ray.get([actor.scores.remote(*given) for actor in self._actors]))
        return scores


class _SteadySearch(CandidateSearch):
    """A search whose result for a row does not depend on how few rows are searched with it."""

    def __init__(self, search: CandidateSearch) -> None:
        self._search = search

    @property
    def fingerprint(self) -> str:
        return self._search.fingerprint

    def search(self, state: SearchState) -> SearchState:
        queries = state.encoded()
        if not 0 < len(queries) < FEW_QUERIES:
            return self._search.search(state)
        repeated = np.resize(queries, (FEW_QUERIES, queries.shape[1]))
        found = self._search.search(replace(state, embeddings=repeated))
        ids, scores = found.ranked()
        ids, scores = ids[: len(queries)], scores[: len(queries)]
        return replace(state, ids=ids, scores=scores, allowed_ids=ids, scorer=found.scorer)
