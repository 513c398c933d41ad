"""What is done to texts in training."""

from __future__ import annotations

from pydantic import Field

from xmc.config.section import Section

__all__ = ["DataConfig"]


class DataConfig(Section):
    """What is done to texts in training."""

    token_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of a query's tokens dropped in training."""
    label_token_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of a label's tokens dropped in training."""
