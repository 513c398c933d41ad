"""Label sets by a threshold on probabilities, which conformal risk control chooses."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from xmc.calibration.candidates import JudgedCandidates
from xmc.calibration.probabilities import Floats, blocks
from xmc.errors import InputError

__all__ = [
    "LEVELS",
    "RECALLS",
    "SetSizes",
    "Thresholds",
    "false_positive_thresholds",
    "miss_thresholds",
    "set_sizes",
    "share",
]

LEVELS = 10_000
"""Thresholds are kept for bounds in this number of equal steps."""
TOLERANCE = 1e-9
RECALLS = (0.5, 0.8, 0.9, 0.95)
"""The recalls for which a calibration tells the sizes of sets, and which checks test."""


@dataclass(frozen=True)
class Thresholds:
    """For each bound j / LEVELS on the expected loss, the threshold t such that the set {label: p >= t} keeps to it.

    With L_i(t) in [0, 1] the loss of calibration query i, which does not rise with t falling (or the other way round), and n
    queries, it is the threshold furthest towards small sets (for misses) or large ones (for false positives) with

        (Σ_i L_i(t) + 1) / (n + 1) <= bound

    so that the expected loss of the next query, exchangeable with these, is at most the bound (Angelopoulos, Bates, Fisch, Lei
    & Schuster, "Conformal risk control", ICLR 2024, eq. 4 and theorem 1).

    values: float64 [LEVELS + 1], NaN for bounds that no set of candidates keeps to. queries: n.
    """

    values: Floats
    queries: int

    def at(self, bound: Fraction) -> float:
        """The threshold of the nearest kept bound that is not above `bound`; NaN where no set keeps to it."""
        return float(self.values[int(bound * LEVELS)])

    def lowest(self) -> float:
        """The lowest bound that can be kept to; 1 where none can."""
        kept_to = np.flatnonzero(~np.isnan(self.values))
        return float(kept_to[0] / LEVELS) if len(kept_to) else 1.0


def miss_thresholds(probabilities: Floats, judged: JudgedCandidates) -> Thresholds:
    """Thresholds for the share of a query's true labels that the set misses, candidates or not: 1 - recall.

    Queries without true labels have none to miss, and are left out.
    """
    queries, columns = np.nonzero(judged.hits)
    hit_probabilities = probabilities[queries, columns]
    order = np.argsort(-hit_probabilities, kind="stable")
    recalled = np.cumsum(1 / judged.positives[queries[order]])
    n = int((judged.positives > 0).sum())
    bounds = np.arange(LEVELS + 1) / LEVELS
    wanted = (n + 1) * (1 - bounds)  # from n - recalled + 1 <= bound (n + 1)
    at = np.searchsorted(recalled, wanted - TOLERANCE)
    values = np.append(hit_probabilities[order], np.nan)[np.minimum(at, len(order))]
    values[wanted <= TOLERANCE] = np.inf
    return Thresholds(values, n)


def false_positive_thresholds(probabilities: Floats, judged: JudgedCandidates) -> Thresholds:
    """Thresholds for the share of the set that is not true, 0 for an empty set.

    That share may fall with larger sets; the loss is the largest share of the set and all smaller ones, which cannot.
    """
    at: list[Floats] = []
    rises: list[Floats] = []
    for rows in blocks(*probabilities.shape):
        p, hits = probabilities[rows], judged.hits[rows]
        order = np.argsort(-p, axis=1, kind="stable")
        p, wrong = np.take_along_axis(p, order, 1), ~np.take_along_axis(hits, order, 1)
        shares = np.cumsum(wrong, axis=1) / np.arange(1, p.shape[1] + 1)
        shares[:, :-1][p[:, 1:] == p[:, :-1]] = 0  # a set holds all labels of one probability, or none
        loss = np.maximum.accumulate(shares, axis=1)
        rise = np.diff(loss, axis=1, prepend=0)
        risen = (rise > 0) & (p > 0)
        at.append(p[risen])
        rises.append(rise[risen])
    thresholds, added = np.concatenate(at), np.concatenate(rises)
    order = np.argsort(-thresholds, kind="stable")
    thresholds, risk = thresholds[order], np.cumsum(added[order])
    last = np.append(thresholds[1:] != thresholds[:-1], True)  # losses that rise at the same probability rise together
    thresholds, risk = thresholds[last[: len(thresholds)]], risk[last[: len(risk)]]
    n = len(judged)
    allowed = np.arange(LEVELS + 1) / LEVELS * (n + 1) - 1 + TOLERANCE
    # Sets may grow down to just above the first probability at which the risk would be too high.
    first_above = np.searchsorted(risk, allowed, side="right")
    values = np.append(np.nextafter(thresholds, np.inf), 0.0)[first_above]
    values[allowed < 0] = np.nan
    return Thresholds(values, n)


@dataclass(frozen=True)
class SetSizes:
    """What a threshold gives for some queries. recall: mean over queries with true labels. false_positive_share: mean over all.

    empty: share of queries with an empty set. whole: share whose set is all candidates.
    """

    recall: float
    false_positive_share: float
    mean: float
    median: float
    largest: int
    empty: float
    whole: float


def set_sizes(probabilities: Floats, judged: JudgedCandidates, threshold: float) -> SetSizes:
    """The sizes of the sets {label: p >= threshold}."""
    inside = (probabilities >= threshold) & np.isfinite(judged.candidates.scores)
    sizes, hits = inside.sum(axis=1), (inside & judged.hits).sum(axis=1)
    asked = judged.positives > 0
    candidates = np.isfinite(judged.candidates.scores).sum(axis=1)
    recalls = hits[asked] / judged.positives[asked]
    return SetSizes(
        recall=float(recalls.mean()) if len(recalls) else 1.0,
        false_positive_share=float(((sizes - hits) / np.maximum(sizes, 1)).mean()),
        mean=float(sizes.mean()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        empty=float((sizes == 0).mean()),
        whole=float((sizes == candidates).mean()),
    )


def share(value: float, name: str) -> Fraction:
    """A number in (0, 1), as it is written. InputError for another."""
    if not isinstance(value, (int, float, np.number)) or not 0 < value < 1:
        raise InputError(f"{name} must be a share between 0 and 1, without them, but is {value!r}.")
    return Fraction(str(float(value)))
