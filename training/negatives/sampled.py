"""Labels drawn uniformly as negatives, with the log-q correction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from typing_extensions import Self

from xmc.arrays import Rows
from xmc.config import SampledConfig, TrainConfig
from xmc.training.batch import Batch
from xmc.training.negatives.base import NegativeSource
from xmc.training.parts import TrainingRun
from xmc.training.randomness import Purpose, numpy_random

__all__ = ["Sampled"]


class Sampled(NegativeSource):
    """Labels drawn uniformly without replacement.

    The inclusion probability of label j, which a training query brings along with the chance s_j in the mean, in a batch of B,
    is π_j = 1 - (1 - count / L) · (1 - s_j)^B: drawn, or brought along by some query of the batch. That takes the B queries
    for independent draws, which they nearly are where B is much smaller than the number of queries.
    """

    name = kind = "sampled"

    def __init__(self, brought: csr_matrix, count: int, batch_size: float, seed: int) -> None:
        """brought: CSR [N, L], the chance that a step with a training query scores a label in any case."""
        self.labels = brought.shape[1]
        self.drawn, self.seed, self.batch_size = min(count, self.labels), seed, batch_size
        self.version = 0
        self.correct(brought)

    def correct(self, brought: csr_matrix) -> None:
        """Have `log_inclusion` as of other chances."""
        share = np.asarray(brought.sum(axis=0)).ravel() / brought.shape[0]
        missed = (1 - self.drawn / self.labels) * (1 - share) ** self.batch_size
        self.log_inclusions = np.log1p(-missed).astype(np.float32)

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """Labels are brought along as `KnownPairs.brought` says."""
        mean = len(run.data.training) / run.steps_per_epoch
        options = run.config.negatives_of(SampledConfig)
        return cls(run.data.known.brought(), options.count, mean, run.config.seed)

    @classmethod
    def count(cls, config: TrainConfig, labels: int, queries: float, positives: float) -> tuple[float, float]:
        """The sample."""
        options = config.negatives_of(SampledConfig)
        return options.count, options.count

    def before_step(self, run: TrainingRun, batch: Batch) -> None:
        """Correct for other pairs where what is known of them has changed."""
        known = run.data.known
        if known.version != self.version:
            self.version = known.version
            self.correct(known.brought())

    def rows(self, batch: Batch) -> Rows:
        """A fresh sample."""
        random = numpy_random(self.seed, batch.step, Purpose.SAMPLED)
        return random.choice(self.labels, self.drawn, replace=False, shuffle=False).astype(np.int64)

    def log_inclusion(self, rows: Rows) -> npt.NDArray[np.float32]:
        """log π of the rows."""
        return self.log_inclusions[rows]
