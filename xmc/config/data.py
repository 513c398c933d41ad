"""What is done to texts in training."""

from __future__ import annotations

from pydantic import Field, model_validator

from xmc.config.section import Section
from xmc.errors import ConfigError

__all__ = ["BagsConfig", "DataConfig"]


class BagsConfig(Section):
    """Training texts that are bags of passages: each label of a text is true of some passage, and nobody has said where."""

    separator: str = ""
    """What stands between the passages of a training text, such as "\\n"; "" where a text is one."""
    tokens: int | None = Field(default=None, ge=1)
    """Number of tokens of the passages that a training text is cut into, words for encoders without tokenizer; null for whole
    texts."""
    stride: int | None = Field(default=None, ge=1)
    """Number of tokens from one passage to the next; null for three quarters of `tokens`."""

    @model_validator(mode="after")
    def _fits_together(self) -> BagsConfig:
        if self.separator and self.tokens is not None:
            raise ConfigError("data.bags cuts texts at a separator or by tokens; leave one of them out.")
        if self.stride is not None and (self.tokens is None or self.stride > self.tokens):
            raise ConfigError(f"data.bags.stride is {self.stride}; let it be at most data.bags.tokens, {self.tokens}.")
        return self

    @property
    def is_on(self) -> bool:
        """Whether texts are cut."""
        return bool(self.separator) or self.tokens is not None


class DataConfig(Section):
    """What is done to texts in training."""

    token_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of a query's tokens dropped in training."""
    label_token_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of a label's tokens dropped in training."""
    bags: BagsConfig = BagsConfig()
    """How training texts are cut into passages. Each label of a text is then learned by the passage that is nearest to it."""
