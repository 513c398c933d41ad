"""The queries of a data set that a run may be calibrated on, or its stages fitted on: those it was not trained on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from pyarrow import compute as pc

from xmc.arrays import Mask, Rows
from xmc.data.dataset import Dataset
from xmc.data.held_out import Uses, uses_of_queries
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.errors import DataError
from xmc.evaluation.labelled import LabelledPart
from xmc.search.fitted import FittedOn
from xmc.search.retriever import Retriever

__all__ = ["LEAST_QUERIES", "AsideQueries", "queries_to_calibrate_on", "queries_to_fit_on", "queries_to_remember"]

logger = logging.getLogger("xmc.calibration")

LEAST_QUERIES = 100
"""With fewer, thresholds for a recall of 0.95 would be the worst query or two."""
VALIDATION, CALIBRATION = "validation", "calibration"
"""Names of what training keeps aside of the training queries, where the data set has no splits of these names."""
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

    def take(self, rows: Rows) -> AsideQueries:
        """Some of the queries."""
        return replace(self, queries=self.queries.take(rows), targets=self.targets.take(rows))


def queries_to_calibrate_on(retriever: Retriever, dataset: Dataset, split: str) -> AsideQueries:
    """A split of the data set, or for "calibration", where it has none of that name, what training kept aside.

    Queries that stages of the retriever were fitted on are left out: what is guaranteed must not have been learned from.
    Raises DataError where there is no such split, the run was trained on it, or less than 100 queries are left of it.
    """
    aside = _aside(retriever, dataset, split)
    fitted = [stage.fitted_on for stage in retriever.stages if stage.fitted_on is not None]
    used = np.zeros(len(aside.queries), bool)
    for on in fitted:
        if on.fingerprint == dataset.fingerprint and on.split == split:
            used |= on.among(aside.queries.uids.to_pylist())
    if used.any():
        logger.info("%d of %d queries of %r are left out: stages were fitted on them", used.sum(), len(used), split)
        aside = aside.take(np.flatnonzero(~used))
    beside = f", {used.sum():,} others that stages were fitted on left out" if used.any() else ""
    _require_enough(aside, split, dataset, beside)
    return aside


def queries_to_fit_on(
    retriever: Retriever, dataset: Dataset, split: str | None = None, share: float | None = None
) -> tuple[AsideQueries, FittedOn]:
    """The queries that a stage of search may be fitted on, and what names them.

    split: of the data set, or "validation" or "calibration" for what training kept aside. By default what training validated
        on where that is at least 100 queries, a split of its own or "validation", else "calibration".
    share: of the split's queries, drawn by their uids; by default half of those for calibration, and all of any other split.
    Raises DataError as `queries_to_calibrate_on`, InputError for a share that is not in (0, 1].
    """
    if split is None:
        split = _validated_on(retriever, dataset) or CALIBRATION
    on = FittedOn(dataset.fingerprint, split, (0.5 if split == CALIBRATION else 1.0) if share is None else share)
    aside = _aside(retriever, dataset, split)
    chosen = aside.take(np.flatnonzero(on.among(aside.queries.uids.to_pylist())))
    _require_enough(chosen, split, dataset, f", in a share of {on.share:g}" if on.share < 1 else "")
    return chosen, on


def queries_to_remember(
    retriever: Retriever, dataset: Dataset, on: FittedOn | None = None
) -> tuple[AsideQueries, Mask]:
    """The training queries that searches may recall, and which of these are among those that a memory is fitted on.

    They are those that the run learned from, and with `on`, what a memory is fitted on, those held out for validation where it
    is these: they are not judged on any more. Of a run that was trained on another data set, all training queries but those of
    `on`. Queries that are not labelled are left out. Raises DataError for a data set without training queries.
    """
    queries, targets = dataset.split("train"), dataset.targets("train")
    uses = _uses(retriever, dataset)
    rows = np.arange(len(queries)) if uses is None else uses.training
    if queries.labelled is not None:  # a query without labels would only take the place of one with some
        rows = rows[queries.labelled[rows]]
    fitted = np.zeros(len(rows), bool)
    if uses is not None and on is not None and on.split == VALIDATION and VALIDATION not in dataset.splits:
        rows = np.concatenate([rows, uses.validation])
        fitted = np.arange(len(rows)) >= len(fitted)
    if uses is None and on is not None and on.split == "train":
        rows = rows[~on.among(queries.uids.to_pylist())]
        fitted = np.zeros(len(rows), bool)
    return AsideQueries(queries.take(rows), targets.take(rows), None), fitted


def _aside(retriever: Retriever, dataset: Dataset, split: str) -> AsideQueries:
    """All queries of a split, or of what training kept aside under its name; DataError for queries of training."""
    trained = retriever.metrics.training
    training = dataset.split("train") if "train" in dataset.splits else None
    uses = _uses(retriever, dataset)
    learned = training if training is None or uses is None else training.take(uses.training)
    if split in (VALIDATION, CALIBRATION) and split not in dataset.splits:
        rows = None if uses is None else {VALIDATION: uses.validation, CALIBRATION: uses.calibration}[split]
        if rows is None or training is None or not len(rows):
            raise DataError(_nothing_aside(dataset, uses is not None, retriever.config.calibration, split))
        return AsideQueries(training.take(rows), dataset.targets("train").take(rows), learned)
    if split == "train" and (uses is not None or (trained is not None and trained.dataset == dataset.name)):
        raise DataError(
            f"The run was trained on the split 'train' of {dataset.name!r}: its scores there are better than on other "
            f"queries, and nothing learned from them would hold. Train with calibration=0.1, which keeps queries aside, or "
            f"name another split."
        )
    queries = dataset.split(split)
    if learned is not None and split != "train":
        _refuse_seen(queries, learned, split, dataset)
    part = LabelledPart.from_split(queries, dataset.targets(split))
    return AsideQueries(part.queries, part.targets, learned)


def _validated_on(retriever: Retriever, dataset: Dataset) -> str | None:
    """The name of the queries that training on this data set validated on; None where there were none, or too few."""
    uses, named = _uses(retriever, dataset), retriever.config.validation.split
    if uses is None:
        return None
    if named is None:
        return VALIDATION if len(uses.validation) >= LEAST_QUERIES else None
    labelled = dataset.labelled(named)
    return named if (len(dataset.split(named)) if labelled is None else labelled.sum()) >= LEAST_QUERIES else None


def _uses(retriever: Retriever, dataset: Dataset) -> Uses | None:
    """What training did with the data set's queries; None for a run that was trained on another one."""
    trained, config = retriever.metrics.training, retriever.config
    if "train" not in dataset.splits or trained is None or trained.dataset_fingerprint != dataset.fingerprint:
        return None
    queries = dataset.split("train")
    shares = config.validation.share, config.calibration
    return uses_of_queries(len(queries), *shares, config.seed, queries.labelled)


def _require_enough(aside: AsideQueries, split: str, dataset: Dataset, beside: str) -> None:
    if len(aside.queries) < LEAST_QUERIES:
        raise DataError(
            f"The split {split!r} of {dataset.name!r} has {len(aside.queries)} queries to learn from{beside}; at least "
            f"{LEAST_QUERIES} are needed, and some thousands are better."
        )


def _nothing_aside(dataset: Dataset, same: bool, share: float, split: str) -> str:
    known = f"The data set {dataset.name!r} has no split {split!r}, only {', '.join(dataset.splits)}"
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
