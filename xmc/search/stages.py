"""The corridor of a search: stages that turn queries into ranked labels, the same for library calls, jobs and calibration.

    encode -> candidates -> further stages of a run -> cut

A stage is a small class that is called with a state of n queries and returns the next one. To add one, write a class, register
it under its name in `STAGES`, and give an instance to `Retriever.use_stages`; the run names it when it is saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from xmc.arrays import Embeddings, Ids, Mask, Rows
from xmc.data.images.ragged import Images
from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder
from xmc.errors import ConfigError, InputError
from xmc.indexes.checks import require_matrix
from xmc.indexes.scan import score_rows
from xmc.indexes.selection import Selection
from xmc.registry import Registry
from xmc.search.filters import Condition, Uids, narrow
from xmc.search.fitted import FittedOn
from xmc.search.labels import LabelVersion
from xmc.search.queries import embed, images_of_texts, query_list
from xmc.search.reasons import Reasons, joined_reasons
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = [
    "PLAIN_STAGES",
    "STAGES",
    "Corridor",
    "EncodeQueries",
    "FilterAndCut",
    "SearchIndex",
    "SearchRequest",
    "SearchState",
    "Stage",
]


@dataclass(frozen=True)
class SearchRequest:
    """What is asked of a search beside its queries; see `Retriever.predict`.

    allow_empty: texts of queries may be empty. without: int64 [n], for each query the index row of a label that is not for it.
    explain: whether stages say why they give a label, see SearchState.explanation.
    """

    k: int
    include: Uids | None = None
    exclude: Uids | None = None
    where: Condition | None = None
    rescore: int | None = None
    diversity: float = 0.0
    allow_empty: bool = False
    without: Rows | None = None
    explain: bool = False

    def filters(self, labels: LabelVersion, queries: int) -> Selection:
        """The index rows that this number of queries may be answered with.

        Raises InputError for filters that do not fit the labels or the number of queries.
        """
        selection = narrow(labels, queries, self.include, self.exclude, self.where)
        if self.without is None:
            return selection
        lists = [self.without[:0]] * len(self.without) if selection.exclude is None else selection.exclude
        excluded = [np.append(rows, row) for rows, row in zip(lists, self.without, strict=True)]
        return replace(selection, exclude=excluded)


@dataclass(frozen=True)
class SearchState:
    """Some queries on their way through the stages; a stage makes the next state by `dataclasses.replace`.

    labels: the labels and their index at one moment; `labels.held` is None where labels are searched elsewhere.
    queries: texts, `Query` objects, features of the query encoder, or embeddings float32 [n, D].
    images: those of each text. features: what the query encoder makes of the texts, where that was done before.
    wanted: number of labels that the stages after `candidates` need.
    embeddings: float32 [n, D], once encoded. ids int64 [n, m], -1 for none, and scores float32 [n, m], -inf for none, best
    first, once there are candidates. explanation: what stages say of each label, where the request asks for it, else None.
    allowed_ids: the ids of a stage that already returned allowed labels alone; other ids are filtered before the cut.
    scorer: embeddings [n, D] and ids [n, m] to exact scores, float32 [n, m], -inf for -1 and ids that are not there; set by the
    stage `candidates`.
    """

    request: SearchRequest
    labels: LabelVersion
    queries: Any
    images: Images | None = None
    features: RaggedTokens | None = None
    wanted: int = 0
    embeddings: Embeddings | None = None
    ids: Ids | None = None
    scores: Embeddings | None = None
    explanation: Reasons | None = None
    allowed_ids: Ids | None = None
    scorer: Callable[[Embeddings, Ids], Embeddings] | None = None

    def encoded(self) -> Embeddings:
        """The embeddings. InputError before `encode`."""
        if self.embeddings is None:
            raise InputError("The queries are not encoded yet; let the stage come after 'encode'.")
        return self.embeddings

    def ranked(self) -> tuple[Ids, Embeddings]:
        """Ids and scores. InputError before `candidates`."""
        if self.ids is None or self.scores is None:
            raise InputError("There are no candidates yet; let the stage come after 'candidates'.")
        return self.ids, self.scores

    def scores_of(self, ids: Ids) -> Embeddings:
        """The exact score of each query with labels of its own, ids int64 [n, m]: float32 [n, m]; InputError as `ranked`."""
        if self.scorer is None:
            raise InputError("There are no candidates yet; let the stage come after 'candidates'.")
        return self.scorer(self.encoded(), ids)

    def explained(self, reasons: Reasons) -> SearchState:
        """The state with more reasons beside those that are there."""
        return replace(self, explanation=joined_reasons(self.explanation, reasons))

    def ordered(self, order: npt.NDArray[np.integer]) -> SearchState:
        """The state with the candidates in other columns, or in fewer: `order` [n, m'] holds column numbers."""
        ids, scores = self.ranked()
        explanation = None if self.explanation is None else np.take_along_axis(self.explanation, order, 1)
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        return replace(self, ids=ids, scores=scores, explanation=explanation)


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
        """Set the embeddings. InputError for queries of another kind, and images that do not fit."""
        return replace(state, embeddings=self._embeddings(state))

    @torch.no_grad()
    def _embeddings(self, state: SearchState) -> Embeddings:
        queries, model = state.queries, self.model
        if state.features is not None:
            encoded: Embeddings = model.queries(state.features).float().cpu().numpy()
            return encoded
        embedded = isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST"
        if state.images is not None:
            listed = [] if embedded else query_list(queries, allow_empty=True)  # an image says something
            texts = [query for query in listed if isinstance(query, str)]
            if embedded or len(texts) < len(listed):
                raise InputError("images go with a list of texts; Query objects and embeddings have none.")
            return model.embed_queries(texts, images_of_texts(state.images, len(texts), model.query_encoder))
        if embedded:
            given: Embeddings = queries
            return given
        vectors = state.labels.vectors_of
        return embed(queries, model.embed_queries, vectors, model.dimension, state.request.allow_empty)


class SearchIndex(Stage):
    """Embeddings to the best labels by the run's index, under the filters of the request."""

    name = "candidates"

    def __call__(self, state: SearchState) -> SearchState:
        """Set ids and scores. InputError for embeddings, filters and numbers that do not fit."""
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
    """Candidates to the k best: labels that further stages brought, and that the request does not allow, are left out."""

    name = "cut"

    def __call__(self, state: SearchState) -> SearchState:
        """Cut to k columns; fewer where there are fewer candidates."""
        ids, scores = state.ranked()
        k = state.request.k
        if ids is not state.allowed_ids:
            allowed = self._allowed(state, ids)
            state = replace(
                state, ids=np.where(allowed, ids, -1), scores=np.where(allowed, scores, np.float32(-np.inf))
            )
            return state.ordered(np.argsort(~allowed, axis=1, kind="stable")[:, :k])
        if k >= ids.shape[1]:
            return state
        explanation = None if state.explanation is None else state.explanation[:, :k]
        return replace(state, ids=ids[:, :k], scores=scores[:, :k], explanation=explanation)

    def _allowed(self, state: SearchState, ids: Ids) -> Mask:
        """Which candidates the request allows, bool [n, m]."""
        rows = state.labels.index_rows_of_ids(ids)
        selection = state.request.filters(state.labels, len(ids))
        kept = rows >= 0
        if selection.allowed is not None:
            kept[kept] = selection.allowed[rows[kept]]
        for lists, included in ((selection.include, True), (selection.exclude, False)):
            for query, listed in enumerate(lists or ()):
                kept[query] &= np.isin(rows[query], listed) == included
        return kept


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
