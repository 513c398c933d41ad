"""The stage of a search that lets the nearest remembered queries vote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from xmc.arrays import Embeddings, Rows
from xmc.cached import cached_property
from xmc.encoders.dual import DualEncoder
from xmc.errors import InputError
from xmc.search.fitted import FittedOn
from xmc.search.memory.encoder import encoder_alone, name_of_encoder, placed_beside
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.union import with_votes
from xmc.search.memory.votes import Floats, NeighbourVotes, VotingRule
from xmc.search.other_encoder import OtherEncoder
from xmc.search.queries import query_list
from xmc.search.reasons import Reason, Reasons
from xmc.search.stages import STAGES, SearchState, Stage

__all__ = ["RecallQueries"]

ENCODER = "encoder"
NEEDS_TEXTS = (
    "The run's memory of queries has an encoder of its own, which needs texts. Give texts, or fit a memory of the run's own "
    "vectors: fit_memory(..., memory='own')."
)
SAME_TEXT = 6
"""Further neighbours that are looked at where those with the query's own text are left out."""


class RecallQueries(Stage):
    """Scores of labels grow by the votes of the nearest remembered queries, whose labels become candidates.

    rule: how they vote. encoder: what makes the vectors of the memory; None for the run's own. fitted_on: the queries that the
    rule was chosen on. There are no votes for queries of several vectors (passages, and what is subtracted), which are like no
    remembered query, and none where diversity is asked for, which chooses by likeness of labels.
    """

    name = "memory"
    for_queries_alone = True

    def __init__(self, rule: VotingRule, encoder: DualEncoder | None = None, fitted_on: FittedOn | None = None) -> None:
        self.rule, self.fitted_on = rule, fitted_on
        self.encoder = None if encoder is None else encoder_alone(encoder)

    @classmethod
    def for_model(cls, model: DualEncoder, directory: Path, **options: Any) -> RecallQueries:
        """See Stage."""
        fitted, named = options.pop("fitted_on"), options.pop("encoder")
        encoder = placed_beside(model, DualEncoder.load(directory / ENCODER)) if named else None
        stage = cls(VotingRule(**options), encoder, None if fitted is None else FittedOn.from_dict(fitted))
        if encoder is not None:
            stage.encoder_name = named  # that of the files, which were verified
        return stage

    def save(self, directory: Path) -> None:
        """See Stage: another encoder than the run's."""
        if self.encoder is not None:
            (directory / ENCODER).mkdir()
            self.encoder.save(directory / ENCODER)

    @property
    def options(self) -> dict[str, Any]:
        """See Stage."""
        fitted = None if self.fitted_on is None else self.fitted_on.to_dict()
        return {**self.rule.to_dict(), "encoder": self.encoder_name, "fitted_on": fitted}

    @cached_property
    def encoder_name(self) -> str:
        """What names the encoder; "" for the run's own. A memory says by the same name what made its vectors."""
        return "" if self.encoder is None else name_of_encoder(self.encoder)

    def votes(self, state: SearchState) -> NeighbourVotes:
        """The votes for the queries of a state that is encoded; InputError as a call."""
        memory = self.require_memory(state.labels.memory)
        return NeighbourVotes.from_neighbours(memory, *self.neighbours(state), self.rule)

    def neighbours(self, state: SearchState) -> tuple[Floats, Rows]:
        """The nearest remembered queries of those of a state, as `QueryMemory.nearest`; InputError as a call."""
        memory = self.require_memory(state.labels.memory)
        vectors, count = self._vectors(state), self.rule.neighbours
        if state.request.leave_one_out:
            similarities, rows = _others(state.queries, memory, *memory.nearest(vectors, count + SAME_TEXT), count)
        else:
            similarities, rows = memory.nearest(vectors, count)
        silent = np.flatnonzero(~vectors.any(axis=1))  # texts that say nothing
        if state.composed is not None:
            silent = np.union1d(silent, state.composed.rows)
        similarities[silent], rows[silent] = -np.inf, -1
        return similarities, rows

    def require_memory(self, memory: QueryMemory | None) -> QueryMemory:
        """The memory. InputError where there is none, or its vectors are of another encoder."""
        if memory is None:
            raise InputError(
                "The stage 'memory' needs remembered queries; give the retriever some with xmc.fit_memory."
            )
        if memory.encoder != self.encoder_name:
            raise InputError(
                f"The memory is of another run: its vectors were made by {_named(memory.encoder)}, and the stage 'memory' "
                f"embeds queries by {_named(self.encoder_name)}. Fit a memory anew with xmc.fit_memory."
            )
        return memory

    def __call__(self, state: SearchState) -> SearchState:
        """See the class. InputError without a memory, and for queries without texts where it has another encoder."""
        ids, _ = state.ranked()
        memory = self.require_memory(state.labels.memory)
        if not ids.size or not len(memory) or state.request.diversity:
            return state
        recalled = self.neighbours(state)
        votes = NeighbourVotes.from_neighbours(memory, *recalled, self.rule)
        after = replace(with_votes(state, votes), recalled=recalled)
        return after.explained(_reasons(after, votes, memory)) if state.request.explain else after

    def _vectors(self, state: SearchState) -> Embeddings:
        """The queries in the space of the memory, float32 [n, D]."""
        if self.encoder is None:
            return state.encoded()
        return OtherEncoder(self.encoder, self.encoder_name).embed_queries(state, NEEDS_TEXTS)


def _others(queries: Any, memory: QueryMemory, similarities: Floats, rows: Rows, count: int) -> tuple[Floats, Rows]:
    """The nearest `count` neighbours [n, count] that have another text than the query. InputError for what is no text."""
    listed = query_list(queries, allow_empty=True)
    own = np.repeat(np.array([query if isinstance(query, str) else "" for query in listed], object), rows.shape[1])
    same = (np.array(memory.texts_at(np.maximum(rows, 0).ravel()), object) == own).reshape(rows.shape)
    order = np.argsort(same, axis=1, kind="stable")[:, :count]
    similarities, rows = np.where(same, -np.inf, similarities), np.where(same, -1, rows)
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(rows, order, 1)


def _named(encoder: str) -> str:
    return f"the encoder {encoder[:12]}" if encoder else "the run's own encoder"


def _reasons(state: SearchState, votes: NeighbourVotes, memory: QueryMemory) -> Reasons:
    """The neighbours that voted for each label, the strongest vote first."""
    ids, _ = state.ranked()
    said: Mapping[tuple[int, int], list[Reason]] = defaultdict(list)
    texts = memory.texts_at(votes.rows)
    entries = zip(votes.queries.tolist(), votes.ids.tolist(), votes.values.tolist(), texts, strict=True)
    for query, label, value, text in entries:
        said[query, label].append(Reason("neighbour", value, text))
    reasons = np.full(ids.shape, None, object)
    for query, column in np.argwhere(ids >= 0).tolist():
        voted = said.get((query, int(ids[query, column])))
        if voted:
            reasons[query, column] = tuple(sorted(voted, key=lambda reason: -reason.value))
    return reasons


STAGES.register(RecallQueries.name, RecallQueries)
