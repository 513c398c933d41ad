"""`xmc.calibrate`: from a retriever and queries it was not trained on to all that is kept with the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmc.calibration.calibration import Calibration, CalibrationSource
from xmc.calibration.candidates import JudgedCandidates
from xmc.calibration.decisions import histogram
from xmc.calibration.dependency import LabelSets
from xmc.calibration.fitting import Choice, choose_probabilities
from xmc.calibration.powerset import fit_powerset, require_nonconformity
from xmc.calibration.probabilities import Floats
from xmc.calibration.reliability import reliability_by_group, reliability_by_rank
from xmc.calibration.risk import RECALLS, false_positive_thresholds, miss_thresholds, set_sizes, share
from xmc.data.dataset import Dataset, opened
from xmc.errors import DataError, InputError, require_package
from xmc.evaluation.gather import gather, groups_of_labels, true_ids
from xmc.evaluation.held_aside import AsideQueries, queries_to_calibrate_on
from xmc.indexes.checks import require_count
from xmc.progress import progress
from xmc.search.calibrated import labels_and_index
from xmc.search.retriever import Retriever

__all__ = ["FITTED_SHARE", "Fitted", "calibrate", "fit_half"]

logger = logging.getLogger("xmc.calibration")

FITTED_SHARE = 0.5
"""The share of the queries that probabilities are fitted on; the others are for what is guaranteed."""
KEPT_SCORES = 10_000


@progress("calibrating")
def calibrate(
    retriever: Retriever,
    dataset: Dataset | str | Path,
    split: str = "calibration",
    *,
    candidates: int = 200,
    norm: float = 2.0,
    label_dependency: float = 0.0,
    seed: int = 0,
) -> Calibration:
    """Calibrate a retriever on queries that it was not trained on, and give it the result, which `save` writes with the run.

    dataset: may be a name or a directory, as of `Dataset.load`.
    split: of the data set. "calibration" is its split of that name, or the training queries that training kept aside (see
        TrainConfig.calibration).
    candidates: labels that are looked at for each query, at most all; true labels beyond them count as missed.
    norm, label_dependency: of the nonconformity of label sets, see xmc.calibration.powerset.Powerset.
    seed: which half of the queries, by their uids, the probabilities are fitted on; thresholds come from the other half.

    Labels may change meanwhile: all is measured on those of the beginning, which the result names, so that answers warn where
    labels are others by then (see `Retriever.fits_calibration`).

    Sources of the parts: see xmc.calibration.probabilities, risk and powerset.

    Raises
    ------
    DataError: a split that the run was trained on, fewer than 100 queries, or none with a true label.
    InputError: options out of range. NotFiniteError: scores that are no numbers. DependencyError: no scikit-learn.
    """
    if not isinstance(retriever, Retriever):
        raise InputError(
            f"The result is given to the retriever, so it must be a Retriever, but is {retriever!r:.100}: load it with "
            f"Retriever.load, calibrate it, and save it."
        )
    dataset = opened(dataset)
    if require_count(candidates, "candidates") < 1:
        raise InputError(f"candidates must be at least 1, but is {candidates}.")
    if not -(2**63) <= seed < 2**63:
        raise InputError(f"seed must be a number of 64 bits, but is {seed}.")
    require_nonconformity(norm, label_dependency)
    calibrated, retriever = retriever, retriever.at_one_version()
    candidates = min(candidates, len(retriever))
    require_package("sklearn", "Calibration fits models of probability", "scikit-learn")
    aside = queries_to_calibrate_on(retriever, dataset, split)
    seen = _seen_sets(retriever, dataset, aside) if label_dependency else None
    groups = groups_of_labels(retriever, dataset, aside.training)
    judged = gather(retriever, dataset, aside.queries, aside.targets, candidates, groups, seed)
    where = f"The split {split!r} of {dataset.name!r}"
    if not judged.positives.any():
        raise DataError(f"{where} has no query with a true label, so there is nothing to calibrate on.")
    fitted = fit_half(judged, retriever.config.objective.temperature, aside.training is not None)
    probabilities, held_out = fitted.probabilities, fitted.held_out
    misses = miss_thresholds(probabilities, held_out)
    sizes = {
        f"recall={recall}": set_sizes(probabilities, held_out, threshold)
        for recall in RECALLS
        if not np.isnan(threshold := misses.at(1 - share(recall, "recall")))
    }
    held_out_ids: list[list[int]] = [[]] * len(held_out)
    if label_dependency:
        ids = true_ids(retriever, dataset, aside.targets)
        held_out_ids = [ids[row] for row in fitted.rows]
    result = Calibration(
        source=CalibrationSource(
            dataset=dataset.name,
            fingerprint=dataset.fingerprint,
            split=split,
            queries=len(judged),
            fitted=len(judged) - len(held_out),
            without_positives=int((judged.positives == 0).sum()),
            recall=float(judged.hits.sum() / judged.positives.sum()),
            seed=seed,
            labels=labels_and_index(retriever.labels),
            stages=retriever.corridor.fingerprints,
        ),
        candidates=candidates,
        groups=groups,
        probabilities=fitted.choice.probabilities,
        brier=fitted.choice.brier,
        reliability=tuple(reliability_by_rank(probabilities, held_out)),
        by_frequency=tuple(reliability_by_group(probabilities, held_out)),
        misses=misses,
        false_positives=false_positive_thresholds(probabilities, held_out),
        powerset=fit_powerset(probabilities, held_out, held_out_ids, norm, label_dependency, seen),
        histogram=histogram(probabilities, held_out),
        scores=_thinned(held_out.candidates.scores[:, 0]),
        sizes=sizes,
    )
    logger.info(
        "calibrated on %d queries of %s, %d for probabilities, %d for guarantees",
        len(judged),
        where,
        result.source.fitted,
        len(held_out),
    )
    calibrated.calibration = result
    return result


@dataclass(frozen=True)
class Fitted:
    """Probabilities fitted on half of the queries, and the other half, from which comes all that is guaranteed.

    rows: row numbers of the other half, int64 [n]. held_out: their candidates, with the truth. probabilities: of these
    candidates, float64 [n, K].
    """

    choice: Choice
    rows: npt.NDArray[np.int64]
    held_out: JudgedCandidates
    probabilities: Floats


def fit_half(judged: JudgedCandidates, temperature: float, by_frequency: bool) -> Fitted:
    """Cut the queries in two, each by its own draw, as if by a coin, and fit probabilities on the first half.

    temperature, by_frequency: see `choose_probabilities`.
    """
    first = judged.draws < FITTED_SHARE
    rows = np.flatnonzero(~first)
    choice = choose_probabilities(judged.take(np.flatnonzero(first)), temperature, by_frequency)
    held_out = judged.take(rows)
    return Fitted(choice, rows, held_out, choice.probabilities(held_out.candidates))


def _seen_sets(retriever: Retriever, dataset: Dataset, aside: AsideQueries) -> LabelSets:
    if aside.training is None:
        raise DataError(
            f"Label dependency is learned from training queries, and {dataset.name!r} has no split 'train'; leave it at 0."
        )
    return LabelSets.from_lists(true_ids(retriever, dataset, aside.training.targets()))


def _thinned(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores in ascending order, evenly thinned to a number that is cheap to keep."""
    ordered = np.sort(scores[np.isfinite(scores)])
    if len(ordered) <= KEPT_SCORES:
        return ordered
    return np.asarray(ordered[np.linspace(0, len(ordered) - 1, KEPT_SCORES).round().astype(np.int64)], np.float32)
