"""Queries that several searches answer together: those of passages, and those that other queries are subtracted from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Ids, Rows
from xmc.cached import cached_property
from xmc.search.passages import combined, strongest
from xmc.search.queries import Query
from xmc.search.reasons import Reason

__all__ = ["Best", "ComposedQueries", "ComposedQuery", "Layout", "QueryPart"]

SEARCHED = 4
"""Number of labels that each vector is searched for, and of those that each part is scored with, for each that is wanted."""
LEAST_SEARCHED = 64
"""The number of them where few are wanted: the best of one passage are often not those of all."""
AT_ONCE = 1_024
"""Number of vectors that are searched together."""
LIKELY = 5
"""Number of labels that a query is taken to have, where another is subtracted: the one at this rank is as likely as not. About
the mean of the data sets that it was chosen on, see docs/documents.md."""
TEXT_SHOWN = 200
"""Number of a passage's characters that a reason shows."""

Scorer = Callable[[Embeddings, Ids], Embeddings]
"""Vectors [n, D] and ids [n, m] to exact scores, float32 [n, m], -inf for the id -1."""
Search = Callable[[Rows, Embeddings, int], tuple[Ids, Embeddings]]
"""Rows of queries [n], a vector for each [n, D] and a number of labels to the best allowed ids and their scores, [n, m]."""


@dataclass(frozen=True)
class QueryPart:
    """A query whose scores are those of one vector, or of its passages combined: the vectors from `start` up to `stop`."""

    query: Query
    start: int
    stop: int

    def searched(self, vectors: Embeddings) -> Embeddings:
        """The vectors to search for, of all of a batch: its own, or their sum, whose scores are the sums."""
        own = vectors[self.start : self.stop]
        return own.sum(axis=0, keepdims=True) if self.query.combine == "sum" else own

    def combined(self, scores: Embeddings) -> Embeddings:
        """The scores of its vectors with labels, float32 [V, C], as one for each label, [C]."""
        return combined(scores, self.query.combine, self.query.temperature) if self.query.passages else scores[0]

    def strongest(self, ids: Ids, scores: Embeddings, count: int) -> Ids:
        """The ids that its vectors were found to have, the `count` best of them, ascending."""
        return strongest(ids, scores, self.query.combine, self.query.temperature, count)

    def reason(self, scores: Embeddings) -> Reason | None:
        """Which passage speaks most for a label, of its scores [V]; None for a part without passages."""
        if not self.query.passages:
            return None
        place = int(scores.argmax())
        return Reason("passage", float(scores[place]), self.query.passages[place][:TEXT_SHOWN])


@dataclass(frozen=True)
class ComposedQuery:
    """The query in a row of a batch: its first part, and those that are subtracted from it; their vectors follow each other."""

    row: int
    parts: tuple[QueryPart, ...]

    @property
    def start(self) -> int:
        """Its first vector."""
        return self.parts[0].start

    @property
    def stop(self) -> int:
        """The one behind its last vector."""
        return self.parts[-1].stop


@dataclass(frozen=True)
class Best:
    """What a composed query found: ids int64 [m], best first, their scores, and why, one reason or None for each.

    middles: of each of its parts the score of a label that is as likely as not to be the part's.
    """

    ids: Ids
    scores: Embeddings
    reasons: list[Reason | None]
    middles: tuple[float, ...]


@dataclass(frozen=True)
class Layout:
    """A batch of queries as texts and queries that one vector each stands for.

    listed: what is embedded. plain: which of them are queries of the batch themselves, and rows: in which rows; all others
    belong to the parts of `composed` queries.
    """

    listed: list[str | Query]
    plain: Rows
    rows: Rows
    composed: tuple[ComposedQuery, ...]

    @classmethod
    def from_queries(cls, queries: Sequence[str | Query]) -> Layout:
        """Of a batch of queries."""
        listed: list[str | Query] = []
        plain: list[tuple[int, int]] = []
        composed: list[ComposedQuery] = []

        def part(query: Query) -> QueryPart:
            start = len(listed)
            listed.extend(query.passages or [query.alone()])
            return QueryPart(query, start, len(listed))

        for row, query in enumerate(queries):
            if isinstance(query, str) or not query.is_composed:
                plain.append((len(listed), row))
                listed.append(query)
            else:
                composed.append(ComposedQuery(row, tuple(part(one) for one in (query, *query.subtracted))))
        places, rows = np.array(plain, np.int64).reshape(-1, 2).T
        return cls(listed, places, rows, tuple(composed))

    def embeddings(self, vectors: Embeddings, unit: Callable[[Embeddings], Embeddings]) -> Embeddings:
        """One for each query of the batch, [n, D]: of a composed one the `unit` mean of its first part's vectors."""
        embeddings = np.empty((len(self.rows) + len(self.composed), vectors.shape[1]), np.float32)
        embeddings[self.rows] = vectors[self.plain]
        for query in self.composed:
            first = vectors[query.start : query.parts[0].stop]
            embeddings[query.row] = first[0] if len(first) == 1 else unit(first.mean(axis=0, keepdims=True))[0]
        return embeddings


@dataclass(frozen=True, eq=False)
class ComposedQueries:
    """The composed queries of a batch. vectors: float32 [V, D], of their parts, among others. temperature: of the model."""

    vectors: Embeddings
    queries: tuple[ComposedQuery, ...]
    temperature: float

    @cached_property
    def rows(self) -> Rows:
        """The rows of the queries in the batch."""
        return np.array([query.row for query in self.queries], np.int64)

    def best(self, wanted: int, search: Search, scorer: Scorer) -> list[Best]:
        """The best labels of each query, at most `wanted`: the candidates of all its vectors are scored by each of them."""
        count = max(SEARCHED * wanted, LEAST_SEARCHED)
        return [best for block in self._blocks() for best in self._best_of_block(block, wanted, count, search, scorer)]

    def scores(self, ids: Ids, middles: Sequence[tuple[float, ...]], scorer: Scorer) -> Embeddings:
        """The exact score of each query with labels of its own, ids int64 [queries, m]. middles: what `best` found."""
        by_part = self._part_scores(
            [(part, row) for query, row in zip(self.queries, ids, strict=True) for part in query.parts], scorer
        )
        scores = np.empty(ids.shape, np.float32)
        for place, (query, known) in enumerate(zip(self.queries, middles, strict=True)):
            scores[place] = self._composed([part.combined(next(by_part)) for part in query.parts], known)
        return scores

    def _blocks(self) -> Iterator[list[ComposedQuery]]:
        """The queries in groups of about `AT_ONCE` vectors."""
        block: list[ComposedQuery] = []
        for query in self.queries:
            if block and query.stop - block[0].start > AT_ONCE:
                yield block
                block = []
            block.append(query)
        if block:
            yield block

    def _best_of_block(
        self, block: list[ComposedQuery], wanted: int, count: int, search: Search, scorer: Scorer
    ) -> Iterator[Best]:
        found = self._found(block, count, search)
        pairs = [(part, part.strongest(*next(found), count)) for query in block for part in query.parts]
        own = self._part_scores(pairs, scorer)
        candidates = iter(ids for _, ids in pairs)
        for query in block:
            matrices = [next(own) for _ in query.parts]
            ids, *_ = [next(candidates) for _ in query.parts]
            totals = [part.combined(matrix) for part, matrix in zip(query.parts, matrices, strict=True)]
            middles = tuple(_middle(total) for total in totals)
            if len(query.parts) > 1:
                others = self._part_scores([(part, ids) for part in query.parts[1:]], scorer)
                totals[1:] = [part.combined(matrix) for part, matrix in zip(query.parts[1:], others, strict=True)]
            scores = self._composed(totals, middles)
            order = np.argsort(-scores, kind="stable")[:wanted]
            reasons = [query.parts[0].reason(matrices[0][:, place]) for place in order]
            yield Best(ids[order], scores[order], reasons, middles)

    def _found(self, block: list[ComposedQuery], count: int, search: Search) -> Iterator[tuple[Ids, Embeddings]]:
        """What a search finds for the vectors of each part, by id and score, [V, m]."""
        searched = [(query.row, part.searched(self.vectors)) for query in block for part in query.parts]
        rows = np.concatenate([np.full(len(vectors), row) for row, vectors in searched])
        vectors = np.concatenate([vectors for _, vectors in searched])
        found = [
            search(rows[first : first + AT_ONCE], vectors[first : first + AT_ONCE], count)
            for first in range(0, len(rows), AT_ONCE)
        ]
        ids, scores = np.concatenate([ids for ids, _ in found]), np.concatenate([scores for _, scores in found])
        ends = np.cumsum([len(vectors) for _, vectors in searched])[:-1]
        return zip(np.split(ids, ends), np.split(scores, ends), strict=True)

    def _part_scores(self, pairs: Sequence[tuple[QueryPart, Ids]], scorer: Scorer) -> Iterator[Embeddings]:
        """For each part the scores of its vectors, float32 [V, C], with ids [C] of its own."""
        ids = np.full((len(pairs), max((len(ids) for _, ids in pairs), default=0)), -1, np.int64)
        for row, (_, listed) in enumerate(pairs):
            ids[row, : len(listed)] = listed
        of_part = np.repeat(np.arange(len(pairs)), [part.stop - part.start for part, _ in pairs])
        numbers = np.concatenate([np.zeros(0, np.int64), *(np.arange(part.start, part.stop) for part, _ in pairs)])
        scores = np.empty((len(numbers), ids.shape[1]), np.float32)
        for first in range(0, len(numbers), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            scores[some] = scorer(self.vectors[numbers[some]], ids[of_part[some]])
        first = 0
        for part, listed in pairs:
            last = first + part.stop - part.start
            yield scores[first:last, : len(listed)]
            first = last

    def _composed(self, totals: Sequence[Embeddings], middles: Sequence[float]) -> Embeddings:
        """The score of each label, [C], from those with each part: of the only one, or p_a (1 - p_b) ... of several."""
        if len(totals) == 1:
            return totals[0]
        likely = [self._likely(total, middle) for total, middle in zip(totals, middles, strict=True)]
        scores = likely[0] * np.prod([1 - other for other in likely[1:]], axis=0)
        return np.where(np.isfinite(totals[0]), scores, -np.inf).astype(np.float32)

    def _likely(self, scores: Embeddings, middle: float) -> npt.NDArray[np.float64]:
        """How likely each label is, float64 [C]: the logistic function of its score at the model's temperature."""
        scaled = (middle - scores.astype(np.float64)) / self.temperature
        likely: npt.NDArray[np.float64] = 1 / (1 + np.exp(np.clip(scaled, -700, 700)))
        return likely


def _middle(scores: Embeddings) -> float:
    """The score at the rank `LIKELY`, or the last where there are fewer labels; infinite where there are none."""
    finite = np.sort(scores[np.isfinite(scores)])[::-1]
    return float(finite[min(LIKELY, len(finite)) - 1]) if len(finite) else np.inf
