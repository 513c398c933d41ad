"""How many of the relevant pairs a data set gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.arrays import Mask
from xmc.config import TrainConfig
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.errors import ConfigError
from xmc.metrics.propensity import propensities

__all__ = ["RecordedShare"]

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RecordedShare:
    """The share of the relevant pairs of labelled queries that is given, and which queries are labelled.

    shares: float64 [L], in (0, 1], of each label. of_all_given: whether these count all given pairs, from
    which the wrong ones are still to be taken. labelled: bool [N].
    """

    shares: Values
    of_all_given: bool
    labelled: Mask

    @classmethod
    def of(cls, targets: Targets, config: TrainConfig, trusted: Split | None) -> RecordedShare:
        """As a configuration says it. trusted: a split whose labels are all known; None without one.

        Raises ConfigError where the share is to be estimated, and no split is trusted.
        """
        options, labels = config.supervision, targets.positives.shape[1]
        labelled = np.ones(len(targets), bool) if targets.labelled is None else targets.labelled
        if options.recorded == "propensity":
            shares = propensities(targets.positive_counts, max(len(targets), 1), *config.objective.positives_propensity)
            return cls(shares, False, labelled)
        there = options.positives
        if there is None and options.recorded == "estimate":
            if trusted is None or not trusted.positives.nnz:
                raise ConfigError(
                    "supervision.recorded: estimate needs queries whose labels are all known; name a split of them as "
                    "validation.split, or say supervision.positives, the number of relevant labels of a query in the mean."
                )
            there = trusted.positives.nnz / len(trusted)
        if there is None:
            return cls(np.full(labels, float(options.recorded)), False, labelled)
        given = targets.positives.nnz / max(int(labelled.sum()), 1)
        return cls(np.full(labels, min(1.0, max(given, 1e-6) / there)), True, labelled)

    @property
    def some_missing(self) -> bool:
        """Whether labelled queries lack relevant pairs."""
        return bool((self.shares < 1).any())

    def of_labels(self, right: float) -> Values:
        """The share of each label, float64 [L]. right: the share of the given pairs that are right."""
        return self.shares * right if self.of_all_given else self.shares
