"""Queries held out of training: for early stopping."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from xmc.config.field_errors import FieldError
from xmc.config.section import Section
from xmc.registry import did_you_mean

__all__ = ["METRICS", "ValidationConfig"]

METRICS = (
    *(f"{name}@{k}" for name in ("P", "nDCG", "PSP", "PSnDCG") for k in (1, 3, 5)),
    "R@10",
    "R@100",
)
"""The metrics that an evaluation of held-out queries has."""


class ValidationConfig(Section):
    """Training queries held out and evaluated, and when training stops early; a plain number is the share."""

    short: ClassVar[str] = "share"

    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training queries that is held out; 0 for none."""
    steps: int | None = Field(default=None, ge=1)
    """Steps between two evaluations; by default they come after each epoch."""
    metric: str = "P@1"
    """Metric of the held-out queries that is to be the best, such as P@1, nDCG@5 or PSP@5."""
    patience: int = Field(default=2, ge=1)
    """Evaluations without a better one after which training stops; the best model is kept."""

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METRICS:
            raise FieldError(f"must be one of {', '.join(METRICS)}", did_you_mean(name, METRICS))
        return name
