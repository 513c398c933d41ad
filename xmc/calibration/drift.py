"""Whether what was guaranteed still holds on newer queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import stats

from xmc.calibration.calibration import Calibration
from xmc.calibration.candidates import Candidates, JudgedCandidates
from xmc.calibration.powerset import true_costs
from xmc.calibration.probabilities import Floats
from xmc.calibration.risk import RECALLS, share
from xmc.errors import DataError, InputError

__all__ = ["ERROR", "Check", "Drift", "check_coverage", "check_recall", "check_scores"]

ERROR = 0.01
"""The probability that a check says that something is wrong where nothing is."""
SIGNIFICANCES = (Fraction(1, 5), Fraction(1, 10), Fraction(1, 20))
INTERVAL = 0.95


@dataclass(frozen=True)
class Check:
    """One guarantee on newer queries.

    name: as it is asked for. nominal: the share that is guaranteed. found: the share that is measured. low, high: bounds of the
    measured share, at 95%. p_value: the probability of a share as low as this if the guarantee held.
    """

    name: str
    nominal: float
    found: float
    low: float
    high: float
    p_value: float

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the guarantee."""
        return self.p_value >= ERROR

    def sentence(self) -> str:
        """The result in words."""
        verdict = "holds" if self.holds else "no longer holds"
        return (
            f"{self.name}: {self.found:.1%} found ({self.low:.1%} to {self.high:.1%}) where {self.nominal:.1%} is guaranteed: "
            f"the guarantee {verdict} (p = {self.p_value:.2g})."
        )


@dataclass(frozen=True)
class Drift:
    """Whether queries have moved: a two-sample Kolmogorov-Smirnov test of their best scores against those of calibration.

    distance: the largest difference of the two distribution functions. before, now: median best scores.
    """

    queries: int
    distance: float
    p_value: float
    before: float
    now: float

    @property
    def moved(self) -> bool:
        """Whether the two differ by more than chance."""
        return self.p_value < ERROR

    def sentence(self) -> str:
        """The result in words."""
        verdict = "have moved away from" if self.moved else "are as those of"
        return (
            f"The best scores of {self.queries:,} queries {verdict} calibration: median {self.now:.3f}, {self.before:.3f} then "
            f"(Kolmogorov-Smirnov distance {self.distance:.3f}, p = {self.p_value:.2g})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "moved": self.moved}


def check_coverage(
    calibration: Calibration, probabilities: Floats, judged: JudgedCandidates, true_ids: list[list[int]]
) -> list[Check]:
    """Checks of the label-powerset regions: exact bounds of Clopper & Pearson (1934) for the share of true sets inside.

    Given n calibration queries, with the a-th highest of their nonconformities as threshold, the number of m exchangeable
    queries outside is beta-binomial with a and n + 1 - a. The p-value is that distribution's, so that it takes into account
    that the threshold comes from finitely many queries. true_ids: the label ids of each query's true labels.
    """
    powerset = calibration.powerset
    costs = true_costs(powerset, probabilities, judged)
    scores = np.array([powerset.score(cost, ids) for cost, ids in zip(costs, true_ids, strict=True)])
    checks, n, m = [], len(powerset.scores), len(scores)
    for significance in SIGNIFICANCES:
        try:
            threshold = powerset.threshold(significance)
        except InputError:
            continue
        # Calibration scores equal to the threshold are inside too, so that fewer than `above` are outside.
        outside, above = int((scores > threshold).sum()), int(significance * (n + 1))
        interval = stats.binomtest(m - outside, m).proportion_ci(INTERVAL, "exact")
        p_value = float(stats.betabinom.sf(outside - 1, m, above, n + 1 - above))
        name = f"significance={float(significance):g}"
        checks.append(Check(name, float(1 - significance), 1 - outside / m, interval.low, interval.high, p_value))
    return checks


def check_recall(calibration: Calibration, probabilities: Floats, judged: JudgedCandidates) -> list[Check]:
    """Checks of risk-controlled sets: the mean recall with normal bounds.

    The p-value is one-sided, of the difference to the nominal recall in standard errors of the new mean and of the calibration
    queries' mean together, as both are drawn; normal, for some hundreds of queries and more.
    """
    asked = judged.positives > 0
    checks, m, n = [], int(asked.sum()), calibration.misses.queries
    for recall in RECALLS:
        threshold = calibration.misses.at(1 - share(recall, "recall"))
        if np.isnan(threshold):
            continue
        inside = (probabilities >= threshold) & judged.hits
        recalls = inside.sum(axis=1)[asked] / judged.positives[asked]
        mean, deviation = float(recalls.mean()), max(float(recalls.std(ddof=1)), 1e-9)
        half = float(stats.norm.ppf((1 + INTERVAL) / 2)) * deviation / m**0.5
        p_value = float(stats.norm.cdf((mean - recall) / (deviation * (1 / m + 1 / n) ** 0.5)))
        low, high = max(mean - half, 0.0), min(mean + half, 1.0)
        checks.append(Check(f"recall={recall:g}", recall, mean, low, high, p_value))
    return checks


def check_scores(calibration: Calibration, candidates: Candidates) -> Drift:
    """Whether queries, labelled or not, have moved. DataError without any candidates."""
    best = candidates.scores[:, :1]
    best = best[np.isfinite(best)]
    if not len(best):
        raise DataError("No label was found for any query, so there is nothing to check.")
    test = stats.ks_2samp(calibration.scores, best)
    before, now = float(np.median(calibration.scores)), float(np.median(best))
    return Drift(len(best), float(test.statistic), float(test.pvalue), before, now)
