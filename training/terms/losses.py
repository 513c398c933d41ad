"""The configured loss of some queries against some labels, called alike whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from xmc.config import TrainConfig
from xmc.kernels import losses
from xmc.training.targets import StepTargets
from xmc.training.terms.base import EmbeddedStep

__all__ = ["RankingLoss"]


class RankingLoss:
    """A loss of queries against labels, by its name in `xmc.kernels.losses`."""

    def __init__(self, config: TrainConfig) -> None:
        self.function: Callable[..., Tensor] = getattr(losses, config.loss)
        self.over_all_labels = config.loss != "triplet_margin"
        """Whether it is a sum over all labels, which may be split over processes; else it is of the hardest negatives."""
        if not self.over_all_labels:
            margin = config.margin
            self.function = partial(
                self.function, k=margin.negatives, margins=(margin.least, margin.most), temperature=margin.temperature
            )

    def __call__(
        self, step: EmbeddedStep, queries: Tensor, labels: Tensor, targets: StepTargets, log_inclusion: Tensor | None
    ) -> Tensor:
        """The loss of queries [B, D] against labels [C, D]; settings other than these are those of the step."""
        options: dict[str, Any] = {"exclude": targets.exclude, "log_inclusion": log_inclusion}
        options = {name: value for name, value in options.items() if value is not None}
        if not self.over_all_labels:
            options.pop("log_inclusion", None)
            return self.function(queries, labels, targets.positives, **options)
        return self.function(
            queries,
            labels,
            targets.positives,
            step.temperature,
            tile_bytes=step.tile_bytes,
            shard=step.shard,
            **options,
        )
