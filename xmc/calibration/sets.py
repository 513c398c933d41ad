"""What calls to a calibrated retriever return: label sets by uid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from xmc.calibration.calibration import Calibration
from xmc.calibration.decisions import Decision, Policy
from xmc.calibration.powerset import UNIT, Powerset, Region
from xmc.calibration.probabilities import Floats
from xmc.calibration.risk import share
from xmc.errors import InputError

__all__ = ["LabelSet", "Scored", "Wanted"]

Uids = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.object_]]


@dataclass(frozen=True)
class LabelSet:
    """The labels of a query whose probability reaches a threshold, likeliest first; perhaps none.

    probabilities: float32 [labels]. whole: all candidates are in it.
    """

    labels: list[str]
    probabilities: npt.NDArray[np.float32]
    whole: bool


@dataclass(frozen=True)
class Wanted:
    """What sets are to guarantee: one of a mean recall, a bound on the mean share of false positives, and a significance.

    Raises InputError for none or several, and values that are not in (0, 1).
    """

    recall: float | None = None
    false_positive_share: float | None = None
    significance: float | None = None

    def __post_init__(self) -> None:
        given = [(name, value) for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise InputError("Name one of recall, false_positive_share and significance.")
        share(given[0][1], given[0][0])

    @property
    def exact_significance(self) -> Fraction | None:
        """The significance as the share that is written; None where sets are to guarantee something else."""
        return None if self.significance is None else share(self.significance, "significance")

    def require(self, calibration: Calibration) -> None:
        """Raise InputError for what the candidates or the number of calibration queries cannot guarantee."""
        if self.exact_significance is None:
            self.threshold(calibration)
        else:
            calibration.powerset.threshold(self.exact_significance)

    def threshold(self, calibration: Calibration) -> float:
        """The threshold on probabilities, for a recall or false positives. InputError for what the candidates cannot give."""
        if self.recall is not None:
            threshold = calibration.misses.at(1 - share(self.recall, "recall"))
            if np.isnan(threshold):
                raise InputError(
                    f"A recall of {self.recall:g} cannot be guaranteed by {calibration.candidates:,} candidates: the highest "
                    f"is {1 - calibration.misses.lowest():.4g}, as others of the calibration queries' labels are not among "
                    f"them. Ask for less, or calibrate with more candidates."
                )
            return threshold
        assert self.false_positive_share is not None
        threshold = calibration.false_positives.at(share(self.false_positive_share, "false_positive_share"))
        if np.isnan(threshold):
            raise InputError(
                f"A false positive share of {self.false_positive_share:g} cannot be guaranteed with "
                f"{calibration.false_positives.queries:,} calibration queries; ask for "
                f"{calibration.false_positives.lowest():.4g} or more."
            )
        return threshold


@dataclass(frozen=True)
class Scored:
    """Candidates of some queries with their probabilities: ids int64 [n, K], -1 for none, float64 [n, K]."""

    ids: npt.NDArray[np.int64]
    probabilities: Floats

    def guaranteed(
        self, wanted: Wanted, calibration: Calibration, limit: int, uids: Uids
    ) -> list[LabelSet] | list[Region[str]]:
        """For each query a label set with the guarantee that is wanted; for a significance a region that lists at most `limit`.

        Raises InputError as `Wanted.require`.
        """
        if wanted.exact_significance is None:
            return self.sets(wanted.threshold(calibration), uids)
        return self.regions(calibration.powerset, wanted.exact_significance, limit, uids)

    def sets(self, threshold: float, uids: Uids) -> list[LabelSet]:
        """For each query the labels whose probability reaches a threshold."""
        names, order = uids(self.ids), np.argsort(-self.probabilities, axis=1, kind="stable")
        label_sets = []
        for row, (ids, probabilities) in enumerate(zip(self.ids, self.probabilities, strict=True)):
            inside = (probabilities >= threshold) & (ids >= 0)
            columns = order[row][inside[order[row]]]
            has_all = bool((ids >= 0).sum() == len(columns))
            label_sets.append(
                LabelSet(names[row][columns].tolist(), probabilities[columns].astype(np.float32), has_all)
            )
        return label_sets

    def regions(self, powerset: Powerset, significance: Fraction, limit: int, uids: Uids) -> list[Region[str]]:
        """For each query the region of label sets, with at most `limit` of its sets listed."""
        names, regions = uids(self.ids), []
        for row, (ids, probabilities) in enumerate(zip(self.ids, self.probabilities, strict=True)):
            is_label = ids >= 0
            region = powerset.region(probabilities[is_label], ids[is_label], significance, limit)
            regions.append(region.named(names[row][is_label].tolist()))
        return regions

    def decisions(self, policy: Policy, uids: Uids) -> list[Decision]:
        """For each query what a policy does with its candidates."""
        counts = ((self.probabilities >= policy.automatic) & (self.ids >= 0)).sum(axis=1).tolist()
        sets = self.sets(policy.person, uids)
        return [
            Decision(chosen.labels[:count], chosen.labels[count:]) for chosen, count in zip(sets, counts, strict=True)
        ]

    def p_values(self, powerset: Powerset, sets: Sequence[Sequence[int]]) -> Floats:
        """The p-value of a set of label ids for each query, float64 [n]; the labels need not be candidates."""
        outside, inside = powerset.costs(self.probabilities)
        p_values = []
        for row, given in enumerate(sets):
            ids, is_label = sorted(set(given)), self.ids[row] >= 0
            member = np.isin(self.ids[row], np.array(ids, np.int64)) & is_label
            candidates_cost = int(np.where(member, inside[row], outside[row])[is_label].sum())
            cost = candidates_cost + UNIT * (len(ids) - int(member.sum()))
            p_values.append(powerset.p_value(powerset.score(cost, ids)))
        return np.array(p_values, np.float64)
