"""What every source of negatives answers, and the labels of a step that come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from xmc.arrays import Rows
from xmc.config import TrainConfig
from xmc.training.batch import Batch
from xmc.training.parts import TrainingPart, TrainingRun
from xmc.training.targets import StepTargets

__all__ = ["NO_ROWS", "NegativeSource", "StepLabels"]

NO_ROWS: Rows = np.zeros(0, np.int64)


@dataclass(frozen=True)
class StepLabels:
    """The labels of one step.

    rows: int64 [C], the label rows that are scored, ascending. fresh: int64 [F], those among them that are encoded,
    ascending; what the others are embedded as comes from the source of negatives.
    targets, taught: of the batch, as positions in `rows`. log_inclusion: None, or float32 [C], see xmc.kernels.losses.
    weights: None, or float32 [F], the factor of the gradient of each encoded label's text.
    """

    rows: Tensor
    fresh: Tensor
    targets: StepTargets
    taught: StepTargets | None = None
    log_inclusion: Tensor | None = None
    weights: Tensor | None = None


class NegativeSource(TrainingPart):
    """One kind of negatives: the labels that a step scores besides those that it must, and what goes with them.

    A step must score the positives that it drew, labels that were judged not relevant to its queries, and what a teacher names.
    A source is a part of training, for those that have a state or something to do between steps. To add one, write a file with
    a class and register it in `xmc.training.negatives.NEGATIVES`; tests/training/test_negatives_contract.py tests all of them.
    """

    kind: ClassVar[str]
    """What a configuration calls it."""
    scores_all: ClassVar[bool] = False
    """Whether a step scores every label; such a source cannot be joined with others."""

    @classmethod
    def count(cls, config: TrainConfig, labels: int, queries: float, positives: float) -> tuple[float, float]:
        """Labels that it adds to those that a step scores, and to those that it encodes, for an estimate.

        labels: of the data set. queries: of a step. positives: different positives of a step's queries.
        """
        return 0.0, 0.0

    def rows(self, batch: Batch) -> Rows:
        """Label rows int64 to score, repeats allowed; not asked of a source that scores all."""
        return NO_ROWS

    def log_inclusion(self, rows: Rows) -> npt.NDArray[np.float32] | None:
        """Log of the probability that each of the label rows is in a step, float32 [C]; None for no correction."""
        return None

    def encoded(self, batch: Batch, queries: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Which label rows are encoded, and their `weights`, as in `StepLabels`; None for all that are scored.

        queries: embeddings [B, D] of the batch, without gradient. Asked only of a source that scores all.
        """
        return None

    def completed(self, texts: Tensor, labels: StepLabels, encoded: slice, step: int) -> Tensor:
        """Text embeddings of this process's scored labels, from those of its encoded ones, `labels.fresh[encoded]`."""
        return texts

    def groups(self, run: TrainingRun, epoch: int) -> npt.NDArray[np.int32] | None:
        """The cluster of each training query, int32 [N], for batches of whole clusters in an epoch; None for random batches."""
        return None
