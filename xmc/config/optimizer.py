"""How parameters are updated: learning rates, their schedule, AdamW."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from xmc.config.field_errors import FieldError
from xmc.config.section import Section

__all__ = ["LearningRates", "OptimizerConfig"]


class LearningRates(Section):
    """The highest learning rate of each group of parameters; a plain number is that of the encoder."""

    short: ClassVar[str] = "encoder"

    encoder: float | None = Field(default=None, gt=0)
    """Rate of the encoder; by default 5e-3 for the static encoder, 5e-5 for a transformer."""
    feature_weights: float = Field(default=0.05, gt=0)
    """Rate of the static encoder's feature weights."""
    label_vectors: float = Field(default=3e-3, gt=0)
    """Rate of the residual label vectors."""
    prototypes: float = Field(default=5e-4, gt=0)
    """Rate of the layer that combines prototypes and of their free vectors, which have no weight decay."""
    images: float | None = Field(default=None, gt=0)
    """Rate of the layer that projects images to the backbone's width; by default that of the encoder."""


class OptimizerConfig(Section):
    """How parameters are updated."""

    learning_rate: LearningRates = LearningRates()
    """Highest learning rates, reached after the warm-up; linear decay to zero follows."""
    warmup: int | float = 0.05
    """Length of the linear warm-up: a number with a point, below 1, is a share of all steps; a whole number is steps."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW, for the transformer encoder."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Epsilon of AdamW, for the transformer encoder."""
    max_gradient_norm: float | None = Field(default=None, gt=0)
    """Norm of all the transformer encoder's gradients together, which are scaled down to it; none for no limit."""

    def warmup_steps(self, total: int) -> float:
        """The length of the warm-up in a training of `total` steps."""
        return self.warmup if isinstance(self.warmup, int) else self.warmup * total

    @field_validator("warmup", mode="before")
    @classmethod
    def _share_or_steps(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not whole and not (isinstance(value, float) and 0 <= value < 1):
            raise FieldError("must be a share in [0, 1) of all steps, or a whole number of steps")
        return value
