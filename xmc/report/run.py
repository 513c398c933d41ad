"""What one run predicts for the queries of a task, by its index and by exact search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmc.cached import cached_property
from xmc.errors import DataError
from xmc.evaluation.evaluate import compare
from xmc.evaluation.judging import Ranking, most_excluded
from xmc.evaluation.predicted import dataset_rows
from xmc.indexes.designs import is_exact
from xmc.metrics import KS, UNKNOWN_LABEL, Metrics, usual_measures
from xmc.report.task import Task
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory
from xmc.storage.directories import read_unreplaced

__all__ = ["PLACES", "ReportedRun"]

PLACES = 10
"""Places of a ranking that are shown and judged."""
LABELS_AT_ONCE = 8_192

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReportedRun:
    """A run with what it predicts for a task. What is read of its directory is read once, before anything is measured.

    disk: bytes of its files by what they hold. log: the lines of its training, "" for none.
    rows: the data set's row of each row of the run's labels, see `dataset_rows`. embeddings: float32 [n, D], of the
    queries. by_index: the labels that the run's index returns. exact: the labels that exact search returns, the same object
    where the index is exact. metrics, exact_metrics: metrics of either, with R@k for all k.
    """

    name: str
    directory: Path
    retriever: Retriever
    disk: dict[str, int]
    log: str
    rows: Int64s
    embeddings: Float32s
    by_index: Ranking
    exact: Ranking
    metrics: Metrics
    exact_metrics: Metrics

    @classmethod
    def measure(
        cls, name: str, directory: Path, task: Task, k: int, device: str | Sequence[str] = "auto"
    ) -> ReportedRun:
        """Load a run, on devices as of Retriever.load, and search k labels for every query.

        Raises StoreError where there is no run, DataError where it shares no label with the data set.
        """
        retriever, disk, log = read_unreplaced(directory, lambda: _read(directory, device))
        labels = retriever.labels
        if not len(labels):
            raise DataError(f"The run {directory} has no labels.")
        rows = dataset_rows(labels, task.dataset)
        images = retriever.model.query_encoder.images_of(task.queries.images)
        embeddings = retriever.embed_queries(task.texts, images=images)
        by_index = _search(retriever, embeddings, rows, task, k)
        scores_all = is_exact(labels.index.design.name, len(labels)) and not labels.index.devices
        exact = by_index if scores_all else _search(retriever.exact(), embeddings, rows, task, k)
        metrics = _metrics(by_index, task)
        exact_metrics = metrics if exact is by_index else _metrics(exact, task)
        return cls(name, directory, retriever, disk, log, rows, embeddings, by_index, exact, metrics, exact_metrics)

    @property
    def is_exact(self) -> bool:
        """Whether its index scores every label, so that it cannot miss one."""
        return self.exact is self.by_index

    @cached_property
    def run_rows(self) -> dict[int, int]:
        """The run's row of each row of the data set's labels that it has."""
        return {int(row): run_row for run_row, row in enumerate(self.rows[:-1]) if row != UNKNOWN_LABEL}

    def first_labels(self, sample: Task, queries: Int64s, k: int) -> Ranking:
        """The k best labels by the run's index for the queries with the rows `queries`. sample: the task of these alone."""
        return _search(self.retriever, self.embeddings[queries], self.rows, sample, k)

    def agreement(self, k: int) -> float:
        """The share of the k best labels by exact search that the index returns among its first k, over all queries."""
        pairs = zip(self.by_index.ids[:, :k], self.exact.ids[:, :k], strict=True)
        shares = [np.isin(best[best >= 0], ids).mean() if (best >= 0).any() else 1.0 for ids, best in pairs]
        return float(np.mean(shares))

    def exact_places(self, queries: Int64s, labels: Int64s, task: Task) -> Int64s:
        """The place of labels of the data set among all labels of the run by exact score, int64 [pairs], from 1.

        queries, labels: of each pair, int64 [pairs]; the run has these labels. A label with the same score is not before
        another; excluded labels do not count.
        """
        pair_rows = np.array([self.run_rows[label] for label in labels.tolist()], np.int64)
        asked, pair_queries = np.unique(queries, return_inverse=True)
        embeddings, vectors = self.embeddings[asked], self.retriever.embeddings
        targets = np.einsum("pd,pd->p", embeddings[pair_queries], vectors[pair_rows])
        hidden = [
            (place, self.run_rows[label])
            for place, query in enumerate(asked.tolist())
            for label in task.targets.excluded[query].indices.tolist()
            if label in self.run_rows
        ]
        hidden_queries, hidden_labels = np.array(hidden, np.int64).reshape(-1, 2).T
        before = np.zeros(len(pair_rows), np.int64)
        for first in range(0, len(vectors), LABELS_AT_ONCE):
            scores = embeddings @ vectors[first : first + LABELS_AT_ONCE].T
            inside = (hidden_labels >= first) & (hidden_labels < first + scores.shape[1])
            scores[hidden_queries[inside], hidden_labels[inside] - first] = -np.inf
            higher = scores[pair_queries] > targets[:, None]
            here = np.flatnonzero((pair_rows >= first) & (pair_rows < first + scores.shape[1]))
            higher[here, pair_rows[here] - first] = False  # a product may differ in its last bit from the one above
            before += higher.sum(axis=1)
        return before + 1


def _read(directory: Path, device: str | Sequence[str]) -> tuple[Retriever, dict[str, int], str]:
    """A run, the bytes of its files, and its log, of one moment where `read_unreplaced` calls this."""
    stored = RunDirectory(directory)
    return Retriever.load(directory, device), stored.bytes_by_content(), stored.read_log()


def _search(retriever: Retriever, embeddings: Float32s, rows: Int64s, task: Task, k: int) -> Ranking:
    wanted = k + most_excluded(task.targets)
    if retriever.stages:  # they may have encoders of their own, which need texts
        images = retriever.model.query_encoder.images_of(task.queries.images)
        answer = retriever.answer(task.texts, wanted, images=images, allow_empty=True)
    else:
        answer = retriever.answer(embeddings, wanted)
    labels = rows[answer.labels.rows_of_ids(answer.ids)]
    return Ranking.from_search(answer.ids, labels, answer.scores, task.targets, k)


def _metrics(ranking: Ranking, task: Task) -> Metrics:
    recall_ks = range(1, max(ranking.labels.shape[1], PLACES) + 1)
    measures = usual_measures(KS, recall_ks)
    return compare(ranking.labels, ranking.scores, task.dataset, task.targets, task.training, measures)
