"""The learning rate over a run."""

from __future__ import annotations

from xmc.config import TrainConfig

__all__ = ["rate_factor"]


def rate_factor(step: int, steps: int, config: TrainConfig) -> float:
    """The share of the highest learning rate at a step (counted from 0) of `steps`.

    Linear warm-up over the configured steps, or share of all steps, times linear decay to zero.
    """
    warmup = config.optimizer.warmup_steps(steps)
    rise = min(1.0, (step + 1) / max(1.0, warmup))
    return rise * (1.0 - step / steps)
