"""Predictions of a retriever against a data set's relevance judgements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmc.data.dataset import Dataset, opened
from xmc.data.judgements import Judgements
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.evaluation.evaluated import Evaluation
from xmc.evaluation.judged import judge, judged_depth
from xmc.evaluation.judging import excluded_predictions, most_excluded
from xmc.evaluation.labelled import LabelledPart
from xmc.evaluation.predicted import Predicted
from xmc.metrics import NO_PREDICTION, Measure, Metrics, evaluate_predictions, measures_of
from xmc.progress import progress
from xmc.search.retriever import Retriever, loaded

__all__ = ["compare", "depth_of", "evaluate", "evaluate_split", "ks_of"]


def evaluate(
    retriever: Retriever | str | Path,
    dataset: Dataset | str | Path,
    split: str = "test",
    exact: bool = False,
    *,
    k: int | Iterable[int] | None = None,
    metrics: str | Iterable[str] | None = None,
    keep_predictions: bool = False,
) -> Evaluation:
    """Evaluate a retriever on a split, with its filter file, and propensities from the training split where there is one.

    retriever: may be a run directory. dataset: may be a name or a directory, as of `Dataset.load`.
    exact: search all labels exactly, whatever the retriever's index: what the model gives, without what the index loses.
    k, metrics: what to compute, such as k=[1, 10] and metrics="p,ndcg,recall@100,gap", see `measures_of`; None for P, nDCG,
        PSP and PSnDCG at 1, 3 and 5 and R at 10 and 100.
    keep_predictions: keep what was predicted, for `write_trec`.

    Labels are matched by uid; a label of the data set that the retriever does not have counts as missed, a label that the
    data set does not have counts as a wrong prediction. Queries that are not labelled are left out. Where the data set has
    judgements of the split, `judged` has what they say. Raises DataError where the two share no label, or no query is labelled,
    ConfigError for a metric that does not exist, InputError for a k that is not an integer from 1.
    """
    measures = measures_of(metrics, k)
    retriever, dataset = loaded(retriever), opened(dataset)
    training = dataset.split("train") if "train" in dataset.splits else None
    searched = retriever.exact() if exact else retriever
    return evaluate_split(
        searched,
        dataset,
        dataset.split(split),
        training,
        dataset.filter(split),
        measures=measures,
        judgements=dataset.judgements(split),
        keep_predictions=keep_predictions,
    )


@progress("evaluating")
def evaluate_split(
    retriever: Retriever,
    dataset: Dataset,
    split: Split,
    training: Split | None,
    filter_pairs: npt.NDArray[np.int64] | None = None,
    *,
    measures: Sequence[Measure] | None = None,
    judgements: Judgements | None = None,
    keep_predictions: bool = False,
) -> Evaluation:
    """As `evaluate`, for queries that are not a split of the data set by name, such as a held-out part of train.

    filter_pairs: pairs (row of `split`, label), int64 [m, 2], that are excluded. measures: None for the usual ones. judgements:
    of these queries.
    """
    retriever = retriever.at_one_version()
    measures = measures_of() if measures is None else measures
    part = LabelledPart.from_split(split, split.targets(filter_pairs), judgements)
    targets = part.targets
    depth = depth_of(measures, targets) + most_excluded(targets)
    if part.judgements is not None:
        depth = max(depth, judged_depth(part.judgements, targets))
    predicted = Predicted.from_search(retriever, dataset, part.queries, depth)
    metrics = compare(predicted.labels, predicted.scores, dataset, targets, training, measures)
    kept = part.spread(predicted, len(split)) if keep_predictions else None
    judged = None
    if part.judgements is not None:
        judged = judge(predicted, part.judgements, targets, ks_of(measures), complete=True)
    stages = tuple(stage.name for stage in retriever.stages)
    counts = len(part.queries), predicted.seconds, stages
    return Evaluation(metrics, *counts, uids=part.queries.uids, judged=judged, predicted=kept)


def ks_of(measures: Sequence[Measure]) -> tuple[int, ...]:
    """The k of measures other than recall and those with a k of their own, ascending; those of recall where there is none."""
    ks = {measure.k for measure in measures if measure.name != "recall" and not measure.metric.own_k}
    return tuple(sorted(ks or {measure.k for measure in measures if measure.name == "recall"} or {1}))


def depth_of(measures: Sequence[Measure], targets: Targets) -> int:
    """The number of places of a ranking that some measures look at."""
    most = int(np.diff(targets.truth.indptr).max(initial=0))
    return max(measure.depth(most) for measure in measures)


def compare(
    rows: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    dataset: Dataset,
    targets: Targets,
    training: Split | None,
    measures: Sequence[Measure],
) -> Metrics:
    """`evaluate_predictions` of the labels `rows` [n, columns] of a data set for the queries of `targets`.

    Excluded predictions are taken out. Propensities come from `training`, and are left out without it. Macro averages and
    deciles are at the k of the measures, those with recall at the k of recall.
    """
    ks = ks_of(measures)
    return evaluate_predictions(
        np.where(excluded_predictions(rows, targets), NO_PREDICTION, rows),
        scores,
        targets.truth,
        training_counts=None if training is None else training.targets().positive_counts,
        training_queries=None if training is None else len(training),
        propensity=dataset.propensity,
        ks=ks,
        recall_ks=tuple(measure.k for measure in measures if measure.name == "recall") or ks,
        measures=measures,
    )
