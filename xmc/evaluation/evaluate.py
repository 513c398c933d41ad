"""Predictions of a retriever against a data set's relevance judgements."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc

from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.errors import DataError
from xmc.evaluation.judging import excluded_predictions, most_excluded
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL, Metrics, evaluate_predictions
from xmc.search.labels import LabelVersion
from xmc.search.retriever import Retriever

__all__ = ["KS", "RECALL_KS", "Evaluation", "compare", "dataset_rows", "evaluate", "evaluate_split"]

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


def evaluate(retriever: Retriever, dataset: Dataset, split: str = "test", exact: bool = False) -> Evaluation:
    """Evaluate a retriever on a split, with its filter file, and propensities from the training split where there is one.

    exact: search all labels exactly, whatever the retriever's index: what the model gives, without what the index loses.
    Labels are matched by uid; a label of the data set that the retriever does not have counts as missed, a label that the
    data set does not have counts as a wrong prediction. Raises DataError where the two share no label.
    """
    training = dataset.split("train") if "train" in dataset.splits else None
    searched = retriever.exact() if exact else retriever
    return evaluate_split(searched, dataset, dataset.split(split), training, dataset.filter(split))


def evaluate_split(
    retriever: Retriever,
    dataset: Dataset,
    split: Split,
    training: Split | None,
    filter_pairs: npt.NDArray[np.int64] | None = None,
) -> Evaluation:
    """As `evaluate`, for queries that are not a split of the data set by name, such as a held-out part of train.

    filter_pairs: pairs (row of `split`, label), int64 [m, 2], that are excluded.
    """
    targets = split.targets(filter_pairs)
    texts = pc.fill_null(split.texts, "").to_pylist()
    labels = retriever.labels
    images = retriever.model.query_encoder.images_of(split.images)
    start = time.perf_counter()
    ids, scores = retriever.search(texts, max(*KS, *RECALL_KS) + most_excluded(targets), images=images)
    seconds = time.perf_counter() - start
    rows = dataset_rows(labels, dataset)[labels.rows_of_ids(ids)] if ids.size else ids
    metrics = compare(rows, scores, dataset, targets, training, KS, RECALL_KS)
    return Evaluation(metrics, len(split), seconds)


def compare(
    rows: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    dataset: Dataset,
    targets: Targets,
    training: Split | None,
    ks: Sequence[int],
    recall_ks: Sequence[int],
) -> Metrics:
    """`evaluate_predictions` of the labels `rows` [n, columns] of a data set for the queries of `targets`.

    Excluded predictions are taken out. Propensities come from `training`, and are left out without it.
    """
    return evaluate_predictions(
        np.where(excluded_predictions(rows, targets), NO_PREDICTION, rows),
        scores,
        targets.truth,
        training_counts=None if training is None else training.targets().positive_counts,
        training_queries=None if training is None else len(training),
        propensity=dataset.propensity,
        ks=ks,
        recall_ks=recall_ks,
    )


def dataset_rows(labels: LabelVersion, dataset: Dataset) -> npt.NDArray[np.int64]:
    """The data set's row of each row of a retriever's labels, int64 [L + 1], UNKNOWN_LABEL for a label that it lacks.

    The last entry is for the row -1, no prediction. Raises DataError where the two share no label.
    """
    indices = pc.index_in(labels.uids, value_set=dataset.labels.uids)
    if len(labels) and indices.null_count == len(indices):
        raise DataError(
            f"The retriever and the data set {dataset.name!r} share no label uid; is it the right data set?"
        )
    rows = pc.fill_null(indices.cast("int64"), UNKNOWN_LABEL).to_numpy()
    return np.append(rows, NO_PREDICTION)
