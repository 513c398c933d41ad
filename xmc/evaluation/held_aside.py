"""The queries of a data set that a run may be calibrated on: those it was not trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pyarrow import compute as pc

from xmc.data.dataset import Dataset
from xmc.data.held_out import uses_of_queries
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.errors import DataError
from xmc.search.retriever import Retriever

__all__ = ["LEAST_QUERIES", "AsideQueries", "queries_to_calibrate_on"]

logger = logging.getLogger("xmc.calibration")

LEAST_QUERIES = 100
"""With fewer, thresholds for a recall of 0.95 would be the worst query or two."""
KEPT_ASIDE = "calibration"
MOST_SEEN = 0.5
"""A split with a greater share of training texts among its queries counts as a part of training."""


@dataclass(frozen=True)
class AsideQueries:
    """Queries to calibrate on.

    queries: the n queries. targets: what is known of their pairs; excluded ones are neither candidates nor true. training:
    what the run was trained on, as far as the data set has it; None without a training split.
    """

    queries: Split
    targets: Targets
    training: Split | None


def queries_to_calibrate_on(retriever: Retriever, dataset: Dataset, split: str) -> AsideQueries:
    """A split of the data set, or for "calibration", where it has none of that name, what training kept aside.

    Raises DataError where there is no such split, the run was trained on it, or it has fewer than 100 queries.
    """
    trained = retriever.metrics.training
    same = trained is not None and trained.dataset_fingerprint == dataset.fingerprint
    config = retriever.config
    training = dataset.split("train") if "train" in dataset.splits else None
    uses = None
    if training is not None and same:
        uses = uses_of_queries(len(training), config.validation.share, config.calibration, config.seed)
    learned = training if training is None or uses is None else training.take(uses.training)
    if split == KEPT_ASIDE and split not in dataset.splits:
        if uses is None or training is None or not len(uses.calibration):
            raise DataError(_nothing_aside(dataset, same, config.calibration))
        queries = training.take(uses.calibration)
        targets = dataset.targets("train").take(uses.calibration)
    else:
        if split == "train" and (same or (trained is not None and trained.dataset == dataset.name)):
            raise DataError(
                f"The run was trained on the split 'train' of {dataset.name!r}: its scores there are better than on other "
                f"queries, and nothing learned from them would hold. Train with calibration=0.1, which keeps queries aside, or "
                f"name another split."
            )
        queries, targets = dataset.split(split), dataset.targets(split)
        if learned is not None and split != "train":
            _refuse_seen(queries, learned, split, dataset)
    if len(queries) < LEAST_QUERIES:
        raise DataError(
            f"The split {split!r} of {dataset.name!r} has {len(queries)} queries to calibrate on; at least {LEAST_QUERIES} are "
            f"needed, and some thousands are better."
        )
    return AsideQueries(queries, targets, learned)


def _nothing_aside(dataset: Dataset, same: bool, share: float) -> str:
    known = f"The data set {dataset.name!r} has no split 'calibration', only {', '.join(dataset.splits)}"
    if same and not share:
        return (
            f"{known}, and the run was trained on all of 'train'. Train it with calibration=0.1, which keeps a tenth of the "
            f"training queries aside, or name a split that it was not trained on: --split test, say."
        )
    return (
        f"{known}, and the run was not trained on this data set, so that it kept no queries of it aside; name a split."
    )


def _refuse_seen(queries: Split, learned: Split, split: str, dataset: Dataset) -> None:
    seen = pc.sum(pc.is_in(queries.texts, value_set=learned.texts.combine_chunks())).as_py() or 0
    if seen > MOST_SEEN * len(queries):
        raise DataError(
            f"{seen:,} of the {len(queries):,} queries of the split {split!r} of {dataset.name!r} are training queries too; a "
            f"run must not have been trained on what it is calibrated on."
        )
    if seen:
        logger.warning("%d of %d queries of the split %r are training queries too", seen, len(queries), split)
