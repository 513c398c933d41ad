"""How far probabilities are from the truth: reliability diagrams and expected calibration errors, by rank and frequency."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.calibration.candidates import FREQUENCY_GROUPS, JudgedCandidates
from xmc.calibration.probabilities import Floats

__all__ = ["BINS", "RANKS", "Bin", "Reliability", "reliability", "reliability_by_group", "reliability_by_rank"]

BINS = 10
RANKS = ((0, 1), (1, 3), (3, 5), (5, 10), (10, 100))
"""Ranks [first, end) from 0 that are looked at apart."""
SIMULATIONS = 20


@dataclass(frozen=True)
class Bin:
    """Predictions with similar probabilities: their mean, the share of them that is true, and how many there are."""

    probability: float
    true: float
    predictions: int


@dataclass(frozen=True)
class Reliability:
    """Of some predictions.

    error: the expected calibration error Σ_b n_b/n |p̄_b - ȳ_b| over BINS bins of equally many predictions (Naeini, Cooper &
    Hauskrecht, AAAI 2015, with equal masses as in Nguyen & O'Connor, EMNLP 2015). floor: the mean of it for predictions that
    are true with just these probabilities, which is not 0 as bins are finite. brier: mean (p - y)².
    """

    name: str
    bins: tuple[Bin, ...]
    error: float
    floor: float
    brier: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Reliability:
        """What `to_dict` gave."""
        return cls(**{**values, "bins": tuple(Bin(**one) for one in values["bins"])})


def reliability(name: str, probabilities: Floats, hits: npt.NDArray[np.bool_]) -> Reliability:
    """Of predictions [m] and which of them are true; of none, zeros and no bins."""
    if not len(probabilities):
        return Reliability(name, (), 0.0, 0.0, 0.0)
    order = np.argsort(probabilities, kind="stable")
    p, y = probabilities[order], hits[order].astype(np.float64)
    parts = [part for part in np.array_split(np.arange(len(p)), BINS) if len(part)]
    bins = tuple(Bin(float(p[part].mean()), float(y[part].mean()), len(part)) for part in parts)
    drawn = np.random.default_rng(0)
    floor = np.mean([_error(p, (drawn.random(len(p)) < p).astype(np.float64), parts) for _ in range(SIMULATIONS)])
    return Reliability(name, bins, _error(p, y, parts), float(floor), float(((p - y) ** 2).mean()))


def reliability_by_rank(probabilities: Floats, judged: JudgedCandidates) -> list[Reliability]:
    """Of the candidates [n, K] of each of RANKS."""
    k = probabilities.shape[1]
    found = []
    for first, end in RANKS:
        if first < k:
            there = np.isfinite(judged.candidates.scores[:, first:end])
            name = f"rank {first + 1}" if end == first + 1 else f"ranks {first + 1} to {end}"
            found.append(reliability(name, probabilities[:, first:end][there], judged.hits[:, first:end][there]))
    return found


def reliability_by_group(probabilities: Floats, judged: JudgedCandidates) -> list[Reliability]:
    """Of the first 10 candidates of each query, by the labels' frequency group; groups without any are left out."""
    first = np.isfinite(judged.candidates.scores[:, :10])
    found = []
    for number, group in enumerate(FREQUENCY_GROUPS):
        there = first & (judged.candidates.groups[:, :10] == number)
        if there.any():
            found.append(
                reliability(f"training queries: {group}", probabilities[:, :10][there], judged.hits[:, :10][there])
            )
    return found


def _error(p: Floats, y: Floats, parts: list[npt.NDArray[np.int64]]) -> float:
    return float(sum(len(part) * abs(p[part].mean() - y[part].mean()) for part in parts) / len(p))
