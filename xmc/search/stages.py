"""The corridor of a search: stages that turn queries into ranked labels, the same for library calls, jobs and calibration.

    encode -> candidates -> further stages of a run -> cut

A stage is a small class that is called with a state of n queries and returns the next one. To add one, write a class, register
it under its name in `STAGES`, and give an instance to `Retriever.use_stages`; the run names it when it is saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xmc.arrays import Embeddings, Ids
from xmc.data.images.ragged import Images
from xmc.encoders.dual import DualEncoder
from xmc.errors import ConfigError, InputError
from xmc.indexes.checks import require_matrix
from xmc.indexes.scan import score_rows
from xmc.registry import Registry
from xmc.search.composed_search import search_composed
from xmc.search.encoding import encoded
from xmc.search.fitted import FittedOn
from xmc.search.labels import LabelVersion
from xmc.search.state import SearchRequest, SearchState
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = [
    "PLAIN_STAGES",
    "STAGES",
    "CandidateSearch",
    "Corridor",
    "EncodeQueries",
    "FilterAndCut",
    "SearchIndex",
    "SearchRequest",
    "SearchState",
    "Stage",
]

RERANK = "rerank"
"""Name of the stage that requests may leave out, or demand."""


class Stage(ABC):
    """One step of a search. name: that of its class in `STAGES`, by which a run names it."""

    name: ClassVar[str]

    for_queries_alone: ClassVar[bool] = False
    """Whether the stage knows what queries are like: a search for the labels most like a label goes without it."""

    fitted_on: FittedOn | None = None
    """The queries that the stage was fitted on; None where it was not fitted. Calibration leaves them out."""

    @classmethod
    def for_model(cls, model: DualEncoder, directory: Path, **options: Any) -> Stage:
        """The stage for a run's model, from its `options` as they are stored with a run.

        directory: what `save` wrote, verified; it is there only where `save` wrote something.
        """
        return cls(**options)

    def save(self, directory: Path) -> None:  # noqa: B027 (most stages have nothing to write)
        """Write what the stage needs besides its options into an existing empty directory: safetensors, Arrow, JSON."""

    @property
    def options(self) -> dict[str, Any]:
        """JSON values that `for_model` makes the stage from again."""
        return {}

    @property
    def fingerprint(self) -> str:
        """What names the stage: it changes where results for the same labels and index would. Calibrations store it."""
        return fingerprint_of_json([self.name, self.options], sort_keys=True)

    def wanted(self, k: int) -> int:
        """Number of labels that the stage needs to return k."""
        return k

    @abstractmethod
    def __call__(self, state: SearchState) -> SearchState:
        """The state after the stage. Rows stay in their order; each depends on its own query alone."""


class EncodeQueries(Stage):
    """Queries of any kind to embeddings by a run's model."""

    name = "encode"

    def __init__(self, model: DualEncoder) -> None:
        self.model = model

    @classmethod
    def for_model(cls, model: DualEncoder, directory: Path, **options: Any) -> EncodeQueries:
        """See Stage."""
        return cls(model)

    @property
    def fingerprint(self) -> str:
        """Of the space of embeddings: the model itself belongs to the run, and its files are verified with it."""
        return fingerprint_of_json([self.name, self.model.dimension, self.model.normalize])

    def __call__(self, state: SearchState) -> SearchState:
        """Set the embeddings, and the composed queries; errors as of xmc.search.encoding.encoded."""
        return encoded(self.model, state)


class CandidateSearch(Stage):
    """Embeddings to the best labels: what a search is, however the labels are held."""

    name = "candidates"

    @abstractmethod
    def search(self, state: SearchState) -> SearchState:
        """With ids, scores, allowed ids and the scorer of queries that one vector each stands for."""

    def __call__(self, state: SearchState) -> SearchState:
        """Set ids and scores. InputError for embeddings, filters and numbers that do not fit."""
        return self.search(state) if state.composed is None else search_composed(state, state.composed, self.search)


class SearchIndex(CandidateSearch):
    """Embeddings to the best labels by the run's index, under the filters of the request."""

    def search(self, state: SearchState) -> SearchState:
        """See CandidateSearch."""
        held, request = state.labels.held, state.request
        if held is None:
            raise InputError("The labels are searched elsewhere; replace the stage 'candidates'.")
        embeddings = require_matrix(state.encoded(), held.dimension, "queries")
        selection = request.filters(state.labels, len(embeddings))
        scores, rows = held.search(
            embeddings,
            state.wanted,
            allowed=selection.allowed,
            include=selection.include,
            exclude=selection.exclude,
            rescore=request.rescore,
            diversity=request.diversity,
        )
        ids = state.labels.ids_at(rows)

        def scorer(embeddings: Embeddings, ids: Ids) -> Embeddings:
            return score_rows(embeddings, held.blocks, state.labels.index_rows_of_ids(ids))

        return replace(state, ids=ids, scores=scores, allowed_ids=ids, scorer=scorer)


class FilterAndCut(Stage):
    """CandidateSearch to the k best: labels that further stages brought, and that the request does not allow, are left out."""

    name = "cut"

    def __call__(self, state: SearchState) -> SearchState:
        """Cut to k columns; fewer where there are fewer candidates."""
        ids, scores = state.ranked()
        k = state.request.k
        if ids is not state.allowed_ids:
            allowed = state.allows(ids)
            state = replace(
                state, ids=np.where(allowed, ids, -1), scores=np.where(allowed, scores, np.float32(-np.inf))
            )
            return state.ordered(np.argsort(~allowed, axis=1, kind="stable")[:, :k])
        if k >= ids.shape[1]:
            return state
        explanation = None if state.explanation is None else state.explanation[:, :k]
        return replace(state, ids=ids[:, :k], scores=scores[:, :k], explanation=explanation)


STAGES: Registry[type[Stage]] = Registry(
    "stage", {stage.name: stage for stage in (EncodeQueries, SearchIndex, FilterAndCut)}
)
"""Classes of stages by name."""
PLAIN_STAGES = tuple(STAGES)
"""The stages of every search."""


@dataclass(frozen=True, eq=False)
class Corridor:
    """The stages of a search in their order: encode, candidates, the further stages of a run, cut.

    Raises ConfigError for two stages of one name.
    """

    stages: tuple[Stage, ...]

    @classmethod
    def for_model(cls, model: DualEncoder, further: Sequence[Stage] = ()) -> Corridor:
        """The stages of every search by a run's model, with further ones between candidates and cut."""
        return cls((EncodeQueries(model), SearchIndex(), *further, FilterAndCut()))

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ConfigError(f"The stage {repeated!r} stands more than once in a search; give each stage one time.")

    @property
    def further(self) -> tuple[Stage, ...]:
        """The stages between candidates and cut."""
        return self.stages[2:-1]

    def __getitem__(self, name: str) -> Stage:
        """A stage by its name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each stage by its name, in their order."""
        return {stage.name: stage.fingerprint for stage in self.stages}

    def without(self, *names: str) -> Corridor:
        """The corridor without some stages; names that it lacks are ignored."""
        return Corridor(tuple(stage for stage in self.stages if stage.name not in names))

    def of_labels(self) -> Corridor:
        """The corridor of a search for labels like others: without stages that are for queries alone."""
        return self.without(*(stage.name for stage in self.stages if stage.for_queries_alone))

    def asked(self, request: SearchRequest) -> Corridor:
        """The corridor that a request goes through. InputError where it demands a re-ranker and there is none."""
        if request.rerank is None:
            return self
        if request.rerank and not any(stage.name == RERANK for stage in self.stages):
            raise InputError(
                "rerank=True demands a re-ranker, and this search has none; fit one with xmc.fit_reranker, or leave it out."
            )
        return self if request.rerank else self.without(RERANK)

    def replaced(self, stage: Stage) -> Corridor:
        """The corridor with another stage in place of the one with the same name."""
        return Corridor(tuple(stage if kept.name == stage.name else kept for kept in self.stages))

    def begin(
        self,
        request: SearchRequest,
        labels: LabelVersion,
        queries: Any,
        images: Images | None = None,
    ) -> SearchState:
        """The state before the first stage."""
        wanted = request.k
        for stage in reversed(self.stages):
            wanted = stage.wanted(wanted)
        return SearchState(request, labels, queries, images, wanted=wanted)

    def encode(self, state: SearchState) -> Embeddings:
        """The embeddings of the state's queries, float32 [n, D], by the first stage alone."""
        return self.stages[0](state).encoded()

    def __call__(self, state: SearchState) -> SearchState:
        """The state after the last stage."""
        for stage in self.stages:
            state = stage(state)
        return state
