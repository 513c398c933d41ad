"""A source of negatives from outside of the package: the labels one after another, some in each step."""

from __future__ import annotations

from typing import Literal

import numpy as np
from typing_extensions import Self

from xmc.arrays import Rows
from xmc.config import NEGATIVES_SECTIONS, NegativesConfig
from xmc.training.batch import Batch
from xmc.training.negatives import NEGATIVES, NegativeSource
from xmc.training.parts import TrainingRun


class ToyTurnsConfig(NegativesConfig):
    """Keys of the negatives "toy-turns"."""

    kind: Literal["toy-turns"] = "toy-turns"
    """Labels in turn."""
    count: int = 4
    """Number of labels of a step."""


class ToyTurns(NegativeSource):
    """`count` labels in each step, from where the step before ended."""

    name = kind = "toy-turns"

    def __init__(self, labels: int, count: int) -> None:
        self.labels, self.count_of_step = labels, count

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        return cls(len(run.data.label_features), run.config.negatives_of(ToyTurnsConfig).count)

    def rows(self, batch: Batch) -> Rows:
        return (batch.step * self.count_of_step + np.arange(self.count_of_step)) % self.labels


NEGATIVES_SECTIONS.register("toy-turns", ToyTurnsConfig)
NEGATIVES.register("toy-turns", ToyTurns)
