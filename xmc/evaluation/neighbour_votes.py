"""Votes for the labels of a query's nearest training queries, by one or several runs, calibrated on given labels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc
from scipy.sparse import csr_matrix, vstack

from xmc.arrays import Embeddings, Rows
from xmc.data.dataset import Dataset
from xmc.data.evidence import Votes
from xmc.encoders.dual import unit_rows
from xmc.errors import DataError, InputError
from xmc.progress import tracked
from xmc.search.memory.queries import QueryMemory
from xmc.search.retriever import Retriever

__all__ = ["VotesOfNeighbours", "neighbour_votes"]

NUMBERS = (5, 10, 15, 20, 25, 30)
"""Numbers of neighbours that are tried, and"""
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""cosines that are: the ranges of the method's authors."""
SMOOTHING = 60
"""What is added to a rank in reciprocal rank fusion (Cormack, Clarke & Buettcher, SIGIR 2009)."""
TRIED = 20_000
"""Number of queries, at most, that the two are chosen on, and number that tell how well."""
LARGEST = 32
"""Labels that are voted for of a query, at most."""
CHUNK = 1024


@dataclass(frozen=True)
class VotesOfNeighbours:
    """Votes, and what was chosen for them.

    neighbours: number of neighbours of a query that vote. threshold: least cosine in a view. loss: Σ (p - t)² over given pairs,
    over their number, on queries that the two were not chosen on: p is the vote, t is one over the number of given labels.
    """

    votes: Votes
    neighbours: int
    threshold: float
    loss: float


def neighbour_votes(
    retrievers: Sequence[Retriever],
    dataset: Dataset,
    source: str = "neighbours",
    neighbours: int | None = None,
    threshold: float | None = None,
) -> VotesOfNeighbours:
    """Labels of each training query's nearest other training queries, counted and divided by their sum.

    retrievers: each is a view. A neighbour's score is Σ_v 1 / (60 + its rank in view v), of views where its cosine is at least
    a threshold; the best `neighbours` vote. What is None is chosen so that votes p for given pairs come near to t, one over the
    number of the query's given labels: Σ (p - t)² over given pairs alone, on a half of the queries. It has no trivial optimum
    because the votes for a query sum to 1, and it needs no pair that is known not to be relevant (Patent-SDG's method, with one
    threshold for all views). Of each query the 32 greatest votes are kept.

    Queries that are not labelled get votes and give none. Pairs of the filter are not counted.
    Raises InputError for numbers out of range, DataError for a data set without labelled training queries.
    """
    if not retrievers:
        raise InputError("Votes of neighbours need at least one run.")
    if neighbours is not None and neighbours < 1:
        raise InputError(f"neighbours must be at least 1, but is {neighbours}.")
    if threshold is not None and not 0 <= threshold < 1:
        raise InputError(f"threshold must be a cosine in [0, 1), but is {threshold}.")
    split, truth = dataset.split("train"), dataset.targets("train").truth.astype(np.float32)
    known = np.flatnonzero(np.diff(truth.indptr))
    if len(known) < 2:
        raise DataError(f"The data set {dataset.name!r} has {len(known)} labelled training queries, and none is near.")
    texts = pc.fill_null(split.texts, "").to_pylist()
    numbers = NUMBERS if neighbours is None else (neighbours,)
    depth = max(*NUMBERS, *numbers)  # the same for a number that is given as for one that is chosen
    views = [_View.of(retriever, texts, split.images, known, depth) for retriever in retrievers]
    thresholds = THRESHOLDS if threshold is None else (threshold,)
    shuffled = np.random.default_rng(0).permutation(known)
    trying, judging = (np.sort(some[:TRIED]) for some in (shuffled[: len(known) // 2], shuffled[len(known) // 2 :]))
    fused = _Fused(views, known, truth, len(split))
    losses = fused.losses(trying, numbers, thresholds)
    least = np.unravel_index(np.argmin(losses), losses.shape)
    chosen = numbers[int(least[0])], thresholds[int(least[1])]
    loss = float(fused.losses(judging, chosen[:1], chosen[1:])[0, 0])
    return VotesOfNeighbours(fused.votes(*chosen, source), *chosen, loss)


class _View:
    """The nearest known queries of each query by the embeddings of a run."""

    def __init__(self, embeddings: Embeddings, memory: QueryMemory, own: Rows, depth: int) -> None:
        """own: int64 [N], the place of each query among the known ones, -1 for none."""
        self.embeddings, self.memory, self.own, self.depth = embeddings, memory, own, depth

    @classmethod
    def of(cls, retriever: Retriever, texts: list[str], images: object, known: Rows, depth: int) -> _View:
        model = retriever.model
        embeddings = unit_rows(model.embed_queries(texts, model.query_encoder.images_of(images)))  # type: ignore[arg-type]
        own = np.full(len(texts), -1, np.int64)
        own[known] = np.arange(len(known))
        none = [np.zeros(0, np.int64)] * len(known)
        return cls(embeddings, QueryMemory.from_lists(embeddings[known], none, [""] * len(known)), own, depth)

    def nearest(self, rows: Rows) -> tuple[npt.NDArray[np.float64], Rows]:
        """Cosines [n, depth] and places among the known queries, nearest first, -inf and -1 for none; not the query itself."""
        cosines, places = self.memory.nearest(self.embeddings[rows], self.depth + 1)
        itself = (places == self.own[rows][:, None]) | (places < 0)
        cosines, places = np.where(itself, -np.inf, cosines), np.where(itself, -1, places)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : self.depth]
        return np.take_along_axis(cosines, order, 1), np.take_along_axis(places, order, 1)


class _Fused:
    """The neighbours of several views together, and what their labels say."""

    def __init__(self, views: Sequence[_View], known: Rows, truth: csr_matrix, queries: int) -> None:
        self.views, self.known, self.truth, self.queries = views, known, truth, queries
        self.labels_of_known = truth[known]

    def losses(self, rows: Rows, numbers: Sequence[int], thresholds: Sequence[float]) -> npt.NDArray[np.float64]:
        """The loss by each number of neighbours and threshold, float64 [numbers, thresholds]."""
        total = np.zeros((len(numbers), len(thresholds)))
        chunks = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
        for some in tracked(chunks, "choosing neighbours", len(rows), unit="queries", size=len):
            found = [view.nearest(some) for view in self.views]
            given = self.truth[some]
            owners = np.repeat(np.arange(len(some)), np.diff(given.indptr))
            wanted = 1 / np.diff(given.indptr)[owners]
            for place, threshold in enumerate(thresholds):
                scored = _scored(found, threshold, len(self.known))
                for number, count in enumerate(numbers):
                    votes = self._said(scored, count)
                    values = np.asarray(votes[owners, given.indices]).ravel()
                    total[number, place] += float(((values - wanted) ** 2).sum())
        return total / max(int(self.truth[rows].nnz), 1)

    def votes(self, count: int, threshold: float, source: str) -> Votes:
        """Of all queries."""
        said = []
        chunks = (np.arange(start, min(start + CHUNK, self.queries)) for start in range(0, self.queries, CHUNK))
        for some in tracked(chunks, "asking neighbours", self.queries, unit="queries", size=len):
            scored = _scored([view.nearest(some) for view in self.views], threshold, len(self.known))
            said.append(_best(self._said(scored, count), LARGEST))
        every = csr_matrix(vstack(said, format="csr"))
        every.sort_indices()
        queries = np.repeat(np.arange(self.queries), np.diff(every.indptr))
        sources, values = np.zeros(every.nnz, np.int32), every.data.astype(np.float32)
        return Votes(queries, every.indices.astype(np.int64), sources, (source,), values)

    def _said(self, scored: csr_matrix, count: int) -> csr_matrix:
        """The labels of the best neighbours of each query, counted and divided by their sum, CSR [n, L]."""
        best = _best(scored, count)
        best.data[:] = 1
        counted = csr_matrix(best @ self.labels_of_known)
        sums = np.asarray(counted.sum(axis=1)).ravel()
        counted.data = counted.data / np.repeat(sums, np.diff(counted.indptr))
        return counted


def _scored(found: Sequence[tuple[npt.NDArray[np.float64], Rows]], threshold: float, known: int) -> csr_matrix:
    """The score of each neighbour, CSR float64 [n, known]: Σ 1 / (60 + rank) over the views where it is near enough."""
    rows, places, scores = [], [], []
    for cosines, nearest in found:
        there = (cosines >= threshold) & (nearest >= 0)
        ranks = np.broadcast_to(np.arange(1, nearest.shape[1] + 1), nearest.shape)
        rows.append(np.nonzero(there)[0])
        places.append(nearest[there])
        scores.append(1 / (SMOOTHING + ranks[there]))
    matrix = csr_matrix(
        (np.concatenate(scores), (np.concatenate(rows), np.concatenate(places))), shape=(len(found[0][1]), known)
    )
    matrix.sum_duplicates()
    return matrix


def _best(matrix: csr_matrix, count: int) -> csr_matrix:
    """The `count` greatest values of each row; of equal ones those of the first columns."""
    owners = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, owners))
    order = order[np.arange(len(order)) - matrix.indptr[owners] < count]
    return csr_matrix((matrix.data[order], (owners[order], matrix.indices[order])), shape=matrix.shape)
