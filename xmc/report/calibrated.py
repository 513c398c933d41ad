"""What a calibrated run promises, and what the queries of a task say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median_low

import numpy as np

from xmc.calibration.calibration import Calibration
from xmc.calibration.candidates import JudgedCandidates
from xmc.calibration.decisions import Expectation, Policy, histogram
from xmc.calibration.drift import SIGNIFICANCES, Check, check_coverage, check_recall
from xmc.calibration.probabilities import Floats
from xmc.calibration.reliability import Reliability, reliability, reliability_by_group, reliability_by_rank
from xmc.calibration.risk import RECALLS, SetSizes, set_sizes
from xmc.calibration.sets import Wanted
from xmc.errors import InputError
from xmc.evaluation.gather import judged, true_ids
from xmc.report.figures import Bar
from xmc.report.mistakes import SEED
from xmc.report.run import Int64s, ReportedRun
from xmc.report.task import Task
from xmc.search.calibrated import fits, stage_difference

__all__ = [
    "COUNTED",
    "MOST_QUERIES",
    "POLICY",
    "Measured",
    "RecallLevel",
    "RegionCounts",
    "RegionLevel",
    "count_of_sets",
    "measure",
    "notices",
]

MOST_QUERIES = 20_000
"""The number of queries that calibration is measured on, a random sample where there are more."""
COUNTED = 100
"""The number of queries whose regions have their label sets counted."""
POLICY = Policy()
FIRST = 5


@dataclass(frozen=True)
class RecallLevel:
    """Label sets of a guaranteed recall.

    why: why it cannot be guaranteed, "" where it can. Then check is what these queries gave, with the sizes of the sets, and
    fixed the smallest k with which the first k labels of every query reach the same recall.
    """

    recall: float
    why: str = ""
    check: Check | None = None
    sizes: SetSizes | None = None
    fixed: int = 0


@dataclass(frozen=True)
class RegionCounts:
    """Numbers of label sets in the regions of some queries. empty: the share of queries with none. median: over all queries."""

    empty: float
    median: int


@dataclass(frozen=True)
class RegionLevel:
    """Regions of label sets at a significance. why: as of RecallLevel; else what these queries gave.

    region: None with label dependency, where counting is slow and ends early.
    """

    significance: float
    why: str = ""
    check: Check | None = None
    region: RegionCounts | None = None


@dataclass(frozen=True)
class Measured:
    """A calibrated run on queries of a task.

    recall: the share of their true labels that is among the candidates. first, first_five: of each query's first labels.
    by_rank, by_frequency: see xmc.calibration.reliability; the latter is empty where all labels are of one group.
    expected, observed: what POLICY does by calibration, and what it does on these queries.
    """

    calibration: Calibration
    recall: float
    first: Reliability
    first_five: Reliability
    by_rank: tuple[Reliability, ...]
    by_frequency: tuple[Reliability, ...]
    recalls: tuple[RecallLevel, ...]
    regions: tuple[RegionLevel, ...]
    expected: Expectation
    observed: Expectation

    @property
    def facts(self) -> dict[str, str]:
        """What it was calibrated on and how, by name."""
        source, method = self.calibration.source, self.calibration.probabilities.method
        powerset = self.calibration.powerset
        dependency = f", label dependency {powerset.dependency:g}" if powerset.dependency else ""
        return {
            "calibrated on": f"{source.split} of {source.dataset}, {source.queries:,} queries",
            "probabilities": f"{method}, fitted on {source.fitted:,} of them",
            "guarantees": f"from the {source.queries - source.fitted:,} others",
            "candidates": f"{self.calibration.candidates:,} labels",
            "true labels among them": f"{source.recall:.1%} in calibration, {self.recall:.1%} here",
            "nonconformity": f"{powerset.norm:g}-norm{dependency}",
        }

    @property
    def reliabilities(self) -> list[tuple[Reliability, int, float, float]]:
        """By rank and by frequency, with the number of predictions, their mean probability, and the share that is true."""
        return [(group, *_means(group)) for group in (*self.by_rank, *self.by_frequency)]

    def recall_checks(self) -> list[Check]:
        """The checks of recalls that are guaranteed."""
        return [level.check for level in self.recalls if level.check]

    def region_checks(self) -> list[Check]:
        """The checks of regions."""
        return [level.check for level in self.regions if level.check]

    def errors_by_rank(self) -> list[Bar]:
        """Calibration error in percent of each rank, beside its floor."""
        return [_error_bar(group, _short(group.name.split(" ", 1)[1])) for group in self.by_rank]

    def errors_by_frequency(self) -> list[Bar]:
        """Calibration error in percent of each frequency group, beside its floor."""
        return [_error_bar(group, _short(group.name.removeprefix("training queries: "))) for group in self.by_frequency]

    def mean_sizes(self) -> list[Bar]:
        """The mean size of sets of a recall, beside the fixed k that reaches it."""
        return [
            (f"{level.recall:g}", level.sizes.mean, level.fixed, f"recall {level.sizes.recall:.1%}")
            for level in self.recalls
            if level.sizes
        ]


def measure(run: ReportedRun, task: Task) -> Measured | None:
    """Search once more, for the candidates of calibration, and compare.

    None for a run that is not calibrated, or calibrated for other stages, and where fewer than two queries have a true label.
    """
    calibration = run.retriever.calibration
    rows = np.sort(np.random.default_rng(SEED).permutation(len(task.queries))[:MOST_QUERIES])
    if calibration is None or (task.positives[rows] > 0).sum() < 2:
        return None
    if stage_difference(calibration, run.retriever.corridor.fingerprints):
        return None
    sample = task.take(rows)
    ranking = run.first_labels(sample, rows, calibration.candidates)
    candidates = calibration.candidates_of(ranking.ids, ranking.scores)
    true = sample.contains(ranking.labels)
    judgement = judged(candidates, true, sample.targets, sample.queries, calibration.source.seed)
    probabilities = calibration.probabilities(candidates)
    present = np.isfinite(candidates.scores)
    first, five = (
        reliability(f"first {most}", probabilities[:, :most][present[:, :most]], true[:, :most][present[:, :most]])
        for most in (1, FIRST)
    )
    return Measured(
        calibration,
        float(judgement.hits.sum() / judgement.positives.sum()),
        first,
        five,
        tuple(reliability_by_rank(probabilities, judgement)),
        tuple(reliability_by_group(probabilities, judgement)) if calibration.groups.any() else (),
        tuple(_recall_levels(calibration, probabilities, judgement)),
        tuple(_region_levels(run, calibration, sample, ranking.ids, probabilities, judgement)),
        calibration.histogram.expect(POLICY),
        histogram(probabilities, judgement).expect(POLICY),
    )


def notices(runs: Sequence[ReportedRun], measured: Sequence[Measured | None], task: Task) -> list[str]:
    """Sentences on runs that are not calibrated, and on why what is measured may differ from what calibration promises."""
    lines: list[str] = []
    if all(run.retriever.calibration is None for run in runs):
        return lines
    for run, of_run in zip(runs, measured, strict=True):
        calibration = run.retriever.calibration
        if calibration is None:
            lines.append(f"{run.name} is not calibrated, and has no part in this section.")
            continue
        if of_run is None and not stage_difference(calibration, run.retriever.corridor.fingerprints):
            lines.append(f"{run.name} is calibrated, but fewer than two queries have a true label to measure it by.")
        source = calibration.source
        same = source.fingerprint == task.dataset.fingerprint
        if same and source.split == task.split:
            lines.append(
                f"{run.name} was calibrated on these very queries: what stands here is not measured on others, and looks "
                f"better than it is. Report on another split."
            )
        elif not same:
            lines.append(
                f"{run.name} was calibrated on {source.dataset}, whose content is not that of this data set "
                f"({task.dataset.name}); what it guarantees is for queries like those."
            )
        difference = stage_difference(calibration, run.retriever.corridor.fingerprints)
        if difference:
            lines.append(f"The calibration of {run.name} was made {difference}; calibrate it again.")
        if not fits(calibration, run.retriever.labels):
            lines.append(
                f"Labels or index of {run.name} were changed after calibration; what it guarantees is for those before. "
                f"Calibrate it again."
            )
    return lines


def _means(group: Reliability) -> tuple[int, float, float]:
    """The number of predictions, their mean probability, and the share of them that is true."""
    predictions = sum(bin.predictions for bin in group.bins)
    probability = sum(bin.probability * bin.predictions for bin in group.bins) / max(predictions, 1)
    return predictions, probability, sum(bin.true * bin.predictions for bin in group.bins) / max(predictions, 1)


def _error_bar(group: Reliability, position: str) -> Bar:
    predictions, probability, true = _means(group)
    note = f"probability {probability:.1%}, true {true:.1%}, {predictions:,} predictions"
    return position, 100 * group.error, 100 * group.floor, note


def _short(numbers: str) -> str:
    """As the page has room for below a bar.

    >>> _short("16 to 31"), _short("64 and more"), _short("none")
    ('16–31', '64+', '0')
    """
    return numbers.replace(" to ", "–").replace(" and more", "+").replace("none", "0")


def count_of_sets(count: int) -> str:
    """For people.

    >>> count_of_sets(12_345), count_of_sets(2**90)
    ('12,345', 'about 10^27')
    """
    digits = len(str(count))
    return f"{count:,}" if digits <= 7 else f"about 10^{digits - 1}"


def _recall_levels(calibration: Calibration, probabilities: Floats, judgement: JudgedCandidates) -> list[RecallLevel]:
    checks = {check.nominal: check for check in check_recall(calibration, probabilities, judgement)}
    judgeable = judgement.positives > 0
    by_rank = np.cumsum((judgement.hits[judgeable] / judgement.positives[judgeable, None]).mean(axis=0))
    levels = []
    for recall in RECALLS:
        try:
            threshold = Wanted(recall=recall).threshold(calibration)
        except InputError as error:
            levels.append(RecallLevel(recall, str(error)))
            continue
        sizes = set_sizes(probabilities, judgement, threshold)
        fixed = int(np.searchsorted(np.append(0, by_rank), sizes.recall - 1e-9))
        levels.append(RecallLevel(recall, "", checks[recall], sizes, fixed))
    return levels


def _region_levels(
    run: ReportedRun,
    calibration: Calibration,
    sample: Task,
    ids: Int64s,
    probabilities: Floats,
    judgement: JudgedCandidates,
) -> list[RegionLevel]:
    true_label_ids: list[list[int]] = [[]] * len(judgement)
    if calibration.powerset.label_sets is not None:
        true_label_ids = true_ids(run.retriever, sample.dataset, sample.targets)
    checks = {check.nominal: check for check in check_coverage(calibration, probabilities, judgement, true_label_ids)}
    levels = []
    for significance in SIGNIFICANCES:
        try:
            calibration.powerset.threshold(significance)
        except InputError as error:
            levels.append(RegionLevel(float(significance), str(error)))
            continue
        plain = calibration.powerset.label_sets is None
        region = _counted(calibration, significance, ids, probabilities) if plain else None
        levels.append(RegionLevel(float(significance), "", checks[float(1 - significance)], region))
    return levels


def _counted(calibration: Calibration, significance: Fraction, ids: Int64s, probabilities: Floats) -> RegionCounts:
    """The label sets in the regions of COUNTED queries, taken in even steps."""
    rows = np.unique(np.linspace(0, len(ids) - 1, COUNTED).round().astype(np.int64))
    counts = []
    for row in rows:
        present = ids[row] >= 0
        region = calibration.powerset.region(probabilities[row][present], ids[row][present], significance, 1)
        counts.append(region.count)
    return RegionCounts(float(np.mean([count == 0 for count in counts])), median_low(counts))
