"""Predictions of a retriever against a data set's relevance judgements."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.data.dataset import Dataset, Split
from xmc.errors import DataError
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL, Metrics, evaluate_predictions
from xmc.retriever import Retriever

__all__ = ["Evaluation", "evaluate", "evaluate_split"]

KS = (1, 3, 5)
RECALL_KS = (10, 100)


@dataclass(frozen=True)
class Evaluation:
    """Metrics in percent, and how long the predictions took.

    queries_per_second: texts to ranked labels, with encoding and search.
    """

    metrics: Metrics
    queries: int
    seconds: float

    @property
    def values(self) -> dict[str, float]:
        """P@k, nDCG@k, PSP@k, PSnDCG@k and R@k by name, in percent."""
        return self.metrics.values

    @property
    def queries_per_second(self) -> float:
        """Queries divided by seconds."""
        return self.queries / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.metrics.to_dict(),
            "queries": self.queries,
            "seconds": self.seconds,
            "queries_per_second": self.queries_per_second,
        }


def evaluate(retriever: Retriever, dataset: Dataset, split: str = "test") -> Evaluation:
    """Evaluate a retriever on a split, with its filter file, and propensities from the training split where there is one.

    Labels are matched by uid; a label of the data set that the retriever does not have counts as missed, a label that the
    data set does not have counts as a wrong prediction. Raises DataError where the two share no label.
    """
    training = dataset.split("train") if "train" in dataset.splits else None
    return evaluate_split(retriever, dataset, dataset.split(split), training, dataset.filter(split))


def evaluate_split(
    retriever: Retriever,
    dataset: Dataset,
    split: Split,
    training: Split | None,
    filter_pairs: npt.NDArray[np.int64] | None = None,
) -> Evaluation:
    """As `evaluate`, for queries that are not a split of the data set by name (a held-out part of train)."""
    most_filtered = 0
    if filter_pairs is not None and len(filter_pairs):
        most_filtered = int(np.bincount(filter_pairs[:, 0]).max())
    texts = split.texts.to_pylist()
    start = time.perf_counter()
    ids, scores = retriever.search(texts, max(*KS, *RECALL_KS) + most_filtered)
    seconds = time.perf_counter() - start
    counts = None if training is None else np.asarray(training.positives.getnnz(axis=0))
    metrics = evaluate_predictions(
        _dataset_rows(retriever, dataset)[ids] if ids.size else ids,
        scores,
        split.positives,
        training_counts=counts,
        training_queries=None if training is None else len(training),
        propensity=dataset.propensity,
        filter=filter_pairs,
        ks=KS,
        recall_ks=RECALL_KS,
    )
    return Evaluation(metrics, len(split), seconds)


def _dataset_rows(retriever: Retriever, dataset: Dataset) -> npt.NDArray[np.int64]:
    """The data set's row of each label id of the retriever; the last place is for the id -1, no prediction."""
    row_of = {uid: row for row, uid in enumerate(dataset.labels.uids.to_pylist())}
    rows = np.full(len(retriever.labels.rows) + 1, NO_PREDICTION, np.int64)
    rows[retriever.labels.ids] = [row_of.get(uid, UNKNOWN_LABEL) for uid in retriever.labels.uids]
    if len(retriever) and (rows < 0).all():
        raise DataError(
            f"The retriever and the data set {dataset.name!r} share no label uid; is it the right data set?"
        )
    return rows
