"""What to do by itself, what to ask a person about, and what share of errors each has to expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.calibration.candidates import JudgedCandidates
from xmc.calibration.probabilities import Floats
from xmc.errors import InputError

__all__ = ["STEPS", "Decision", "Expectation", "Histogram", "Policy", "histogram"]

STEPS = 1_000
"""Thresholds of a policy are whole thousandths."""


@dataclass(frozen=True)
class Policy:
    """Labels of a probability p >= automatic are taken without asking, of p >= person a person is asked, others are left out.

    Raises InputError for thresholds that are not whole thousandths with 0 <= person <= automatic <= 1.
    """

    automatic: float = 0.9
    person: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = isinstance(value, (int, float, np.number)) and 0 <= value <= 1
            if not number or abs(value * STEPS - round(value * STEPS)) >= 1e-6:
                raise InputError(f"The threshold {name} must be a whole thousandth between 0 and 1, but is {value!r}.")
        if self.person > self.automatic:
            raise InputError(f"The threshold person, {self.person}, must not be above automatic, {self.automatic}.")

    def decisions(self, probabilities: Floats) -> npt.NDArray[np.object_]:
        """What becomes of labels with these probabilities, of any shape: "automatic", "person" or "none"."""
        choices = [probabilities >= self.automatic, probabilities >= self.person]
        return np.select(choices, ["automatic", "person"], "none").astype(object)


@dataclass(frozen=True)
class Decision:
    """Labels of a query by uid, likeliest first: to be taken without asking, and to be asked about. All others are left out."""

    automatic: list[str]
    person: list[str]


@dataclass(frozen=True)
class Expectation:
    """What a policy has to expect, as it was on calibration queries that the probabilities were not fitted on.

    automatic, person: mean number of labels for each query. automatic_error: the share of automatic labels that is not true.
    person_true: the share of labels for a person that the person would confirm. found_automatic, found_person, lost: shares of
    all true labels; lost labels are below both thresholds, or no candidates. Shares of nothing are 0.
    """

    automatic: float
    automatic_error: float
    person: float
    person_true: float
    found_automatic: float
    found_person: float
    lost: float

    def sentence(self) -> str:
        """The expectation in words."""
        return (
            f"automatic: {self.automatic:.2f} labels a query, {self.automatic_error:.1%} of them wrong; to a person: "
            f"{self.person:.2f}, {self.person_true:.1%} of them right. Of all true labels {self.found_automatic:.1%} are "
            f"automatic, {self.found_person:.1%} with a person, {self.lost:.1%} lost."
        )


@dataclass(frozen=True)
class Histogram:
    """Numbers of candidates, and of true candidates, with a probability in [i / STEPS, (i + 1) / STEPS): int64 [STEPS + 1].

    queries: number of calibration queries. positives: number of their true labels, candidates or not.
    """

    candidates: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]
    queries: int
    positives: int

    def expect(self, policy: Policy) -> Expectation:
        """What a policy gave on the calibration queries."""
        upper, lower = round(policy.automatic * STEPS), round(policy.person * STEPS)
        taken, taken_true = int(self.candidates[upper:].sum()), int(self.true[upper:].sum())
        asked, asked_true = int(self.candidates[lower:upper].sum()), int(self.true[lower:upper].sum())
        positives = max(self.positives, 1)
        return Expectation(
            automatic=taken / max(self.queries, 1),
            automatic_error=1 - taken_true / taken if taken else 0.0,
            person=asked / max(self.queries, 1),
            person_true=asked_true / asked if asked else 0.0,
            found_automatic=taken_true / positives,
            found_person=asked_true / positives,
            lost=(self.positives - taken_true - asked_true) / positives,
        )


def histogram(probabilities: Floats, judged: JudgedCandidates) -> Histogram:
    """The histogram of the candidates of some queries, whose probabilities are float64 [n, K]."""
    is_label = np.isfinite(judged.candidates.scores)
    steps = np.floor(probabilities * STEPS + 1e-9).astype(np.int64)
    return Histogram(
        np.bincount(steps[is_label], minlength=STEPS + 1),
        np.bincount(steps[is_label & judged.hits], minlength=STEPS + 1),
        len(judged),
        int(judged.positives.sum()),
    )
