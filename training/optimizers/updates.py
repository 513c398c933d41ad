"""The optimizers as a part of training: gradients of all processes are summed, then every parameter moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import Self

from xmc.config import ResidualConfig
from xmc.training.batch import Batch, StepReport
from xmc.training.checkpoints import Checkpoint
from xmc.training.distributed.gradients import sum_gradients
from xmc.training.optimizers.model import Optimizers
from xmc.training.optimizers.moments import bytes_per_number
from xmc.training.optimizers.schedule import rate_factor
from xmc.training.parts import PartState, Sizes, TrainingPart, TrainingRun
from xmc.training.weights import Weights

__all__ = ["Updates"]


class Updates(TrainingPart):
    """Uses up the gradients of each step."""

    name = "optimizers"

    def __init__(self, optimizers: Optimizers) -> None:
        self.optimizers = optimizers

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """Optimizers for the run's model."""
        return cls(Optimizers(run.model, run.config))

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """Two moments of everything that is learned, and gradients of what is dense."""
        residual, split = (
            ResidualConfig.of(sizes.config.label_vectors),
            sizes.processes if sizes.config.encoder.is_split else 1,
        )
        learned = float(sum(p.numel() * p.element_size() for p in sizes.model.parameters() if p.requires_grad))
        taken = {"encoder moments": 2 * learned / split}
        gradients = float(sum(encoder.gradient_bytes() for encoder in sizes.model.encoders))
        if gradients:
            taken["encoder gradients"] = gradients / split
        if residual is not None:
            where = " (host)" if residual.memory == "host" else ""
            numbers = sizes.own_labels * sizes.model.dimension
            taken["label vectors' moments" + where] = numbers * bytes_per_number(residual.moments)
        return taken

    def after_step(self, run: TrainingRun, batch: Batch, report: StepReport) -> Mapping[str, Any]:
        """Sum gradients over the processes, and update every parameter at the schedule's rates."""
        optimizers = self.optimizers
        with run.clock.of("exchange"):
            tables = [table.table for table in optimizers.tables]
            sum_gradients(run.world, optimizers.dense_parameters, tables)
        with run.clock.of("optimizer"):
            factor = rate_factor(batch.step, run.steps, run.config)
            norm = optimizers.step(factor)
        values = {"learning_rate": factor * run.config.encoder_learning_rate}
        return values if optimizers.dense is None else {**values, "gradient_norm": norm}

    def checkpoint_bytes(self, run: TrainingRun) -> int:
        """Two moments of everything that is learned; AdamW has its own from the first step on."""
        return 2 * Weights(run.model).checkpoint_bytes(run)

    def state(self) -> PartState:
        """Moments and step counts."""
        return PartState(*self.optimizers.state())

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        self.optimizers.load_state(checkpoint, run.labels)
