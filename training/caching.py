"""Whether a run caches gradients: as the configuration says, or where the activations of a step would not fit."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from xmc.training.free_memory import free_memory
from xmc.training.parts import Sizes, TrainingRun
from xmc.training.step_sizes import Lengths, StepSizes

__all__ = ["Caching", "caching_of_run", "chosen_caching"]

logger = logging.getLogger("xmc.training")
SHARE_OF_HOST = 0.5
"""Share of the memory that a machine has free, less that of everything else, that the activations of a step may take: other
programs want some, and steps differ in size."""
SHARE_OF_GPU = 0.7
"""The same of a GPU's, which no other program uses, but whose allocator leaves holes."""


@dataclass(frozen=True)
class Caching:
    """Whether gradients are cached, and why.

    activations: bytes that a step's encoding holds without. room: bytes that there are for them; None where it is not known.
    """

    cached: bool
    asked: bool
    activations: float
    room: float | None

    def __str__(self) -> str:
        state, size = "on" if self.cached else "off", _size(self.activations)
        if self.asked:
            return f"{state}, as configured"
        if self.room is None:
            return f"{state}, for it is not known whether the {size} of activations of a step fit"
        fits = "do not fit" if self.cached else "fit"
        return f"{state}, for the {size} of activations of a step {fits} into the {_size(self.room)} that they may take"


def chosen_caching(sizes: Sizes, step: StepSizes, device: torch.device) -> Caching:
    """As the configuration says; "auto" is to cache where the activations of a step would not fit into what is free now.

    A backbone that is split over processes needs gradient caching.
    """
    config, activations = sizes.config, step.activations(sizes.model, cached=False)
    if config.gradient_cache != "auto" or config.encoder.is_split:
        return Caching(bool(config.gradient_cache), True, activations, None)
    free = free_memory(device)
    if free is None:
        return Caching(True, False, activations, None)
    others = sum(size for name, size in step.memory(sizes).items() if device.type != "cuda" or "(host)" not in name)
    share = SHARE_OF_GPU if device.type == "cuda" else SHARE_OF_HOST
    room = max(0.0, share * (free - others))
    return Caching(activations > room, False, activations, room)


def caching_of_run(run: TrainingRun) -> Caching:
    """The choice of a run before its first step, the same one in all processes: to cache where one of them has to.

    The log says it.
    """
    data, positives = run.data, run.data.training.positives
    sizes = Sizes(run.config, run.model, len(data.label_features), len(data.training), run.world.size)
    lengths = Lengths(
        positives.nnz / max(len(data.training), 1),
        len(data.query_features.values) / max(len(data.query_features), 1),
        len(data.label_features.values) / max(len(data.label_features), 1),
    )
    chosen = chosen_caching(sizes, StepSizes.expected(sizes, lengths), run.device)
    if run.world.size > 1:
        chosen = replace(chosen, cached=run.world.most(int(chosen.cached)) > 0)
    if run.world.is_root:
        logger.info("gradient caching: %s", chosen)
    return chosen


def _size(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"
