"""Queries that training is judged by as it goes, for early stopping: held out of train, or a split of their own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from xmc.config.field_errors import FieldError
from xmc.config.section import Section
from xmc.errors import ConfigError
from xmc.registry import did_you_mean

__all__ = ["METRICS", "ValidationConfig"]

METRICS = (
    *(f"{name}@{k}" for name in ("P", "nDCG", "PSP", "PSnDCG") for k in (1, 3, 5)),
    "R@10",
    "R@100",
)
"""The metrics that an evaluation of held-out queries has."""


class ValidationConfig(Section):
    """Queries that are evaluated as training goes, and when it stops early; a plain number is the share."""

    short: ClassVar[str] = "share"

    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training queries that is held out; 0 for none."""
    split: str | None = None
    """A split of the data set in place of a share of train, such as one whose labels are known to be right."""
    steps: int | None = Field(default=None, ge=1)
    """Steps between two evaluations; by default they come after each epoch."""
    metric: str = "P@1"
    """Metric of the held-out queries that is to be the best, such as P@1, nDCG@5 or PSP@5."""
    patience: int = Field(default=2, ge=1)
    """Evaluations without a better one after which training stops; the best model is kept."""

    @property
    def is_on(self) -> bool:
        """Whether there are queries to validate on."""
        return self.share > 0 or self.split is not None

    @model_validator(mode="after")
    def _one_of_them(self) -> ValidationConfig:
        if self.share and self.split is not None:
            raise ConfigError(
                f"validation.share is {self.share:g} and validation.split is {self.split!r}; set the share to 0 to validate on "
                f"the split, or leave the split out."
            )
        if self.split == "train":
            raise ConfigError(
                "validation.split is 'train', which training learns from; set validation.share to 0.1, say."
            )
        return self

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METRICS:
            raise FieldError(f"must be one of {', '.join(METRICS)}", did_you_mean(name, METRICS))
        return name
