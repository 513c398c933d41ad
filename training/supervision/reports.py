"""What an estimate decided, for the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xmc.training.supervision.decisions import Beliefs
from xmc.training.supervision.estimate import Estimated, Estimator
from xmc.training.supervision.pair_entries import PairEntries

__all__ = ["SupervisionReport", "reported"]


@dataclass(frozen=True)
class SupervisionReport:
    """What an estimate found of a training split's pairs, and what was decided.

    given: pairs of the data set's lists of labels. wrong: the share of them that is estimated to be wrong. left_out: those that
    count nowhere now. pulling, new: pairs that are positives, and those among them without any evidence. doubted: pairs without
    evidence that count less as negatives. accuracies: of the sources of votes, where as many pairs are relevant as not.
    precisions: of sources that vote against no pair, the share of the votes that is right.
    """

    given: int
    wrong: float
    left_out: int
    pulling: int
    new: int
    doubted: int
    accuracies: dict[str, float] = field(default_factory=dict)
    precisions: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line."""
        sources = "".join(f"; accuracy of {name} {value:.3f}" for name, value in self.accuracies.items())
        sources += "".join(f"; precision of {name} {value:.3f}" for name, value in self.precisions.items())
        return (
            f"{self.wrong:.1%} of {self.given:,} given pairs are estimated to be wrong, {self.left_out:,} are left out; "
            f"{self.pulling:,} positives, {self.new:,} of them new; {self.doubted:,} others count less as negatives{sources}"
        )


def reported(estimator: Estimator, beliefs: Beliefs, estimated: Estimated, entries: PairEntries) -> SupervisionReport:
    """Of the entries that were decided by some beliefs."""
    evidence = estimator.evidence
    known = np.isin(entries.keys, evidence.pairs.keys)
    given = int(evidence.given.sum())
    pulling = entries.pull > 0
    kept = int(np.isin(evidence.pairs.keys[evidence.given], entries.keys[pulling]).sum())
    accuracies: dict[str, float] = {}
    precisions: dict[str, float] = {}
    if estimated.channels is not None:
        values, precisions = estimated.channels.accuracy, estimator.precisions(estimated)
        accuracies = {
            name: float(value)
            for name, value in zip(evidence.votes.names, values, strict=True)
            if name not in precisions
        }
    return SupervisionReport(
        given,
        float(1 - estimated.given[evidence.given].mean()) if given else 0.0,
        given - kept,
        int(pulling.sum()),
        int((pulling & ~known).sum()),
        int((~known & ~pulling).sum()),
        accuracies,
        precisions,
    )
