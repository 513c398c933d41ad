"""Which labels a step scores besides its queries' positives: a section for each kind."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from xmc.config.section import KindSection
from xmc.errors import ConfigError
from xmc.registry import Registry

__all__ = [
    "NEGATIVES_SECTIONS",
    "AllConfig",
    "BankConfig",
    "ClustersConfig",
    "InBatchConfig",
    "NegativesConfig",
    "SampledConfig",
    "ShortlistConfig",
]


class NegativesConfig(KindSection):
    """The base of negatives' sections; a new kind is registered in NEGATIVES_SECTIONS."""

    scores_all: ClassVar[bool] = False
    """Whether a step scores every label, so that nothing can be joined with this kind."""
    only_positives: ClassVar[bool] = False
    """Whether a step scores the batch's positives alone, so that a label without queries is never a negative."""


class AllConfig(NegativesConfig):
    """A step scores and encodes every label."""

    scores_all: ClassVar[bool] = True

    kind: Literal["all"] = "all"
    """All labels."""


class BankConfig(NegativesConfig):
    """A step scores every label; it encodes some and takes the others as they were some steps ago."""

    scores_all: ClassVar[bool] = True

    kind: Literal["bank"] = "bank"
    """All labels, most of them from a bank of embeddings."""
    hard: int = Field(default=4, ge=0)
    """Number of labels that a step encodes for each query because they score highest by the bank."""
    refresh: int = Field(default=64, ge=0)
    """Number of labels in rotation that a step encodes, in random order, so that none grows old."""
    unbiased: bool = False
    """The labels in rotation stand for all that the step does not encode, and their gradient is scaled up accordingly; the
    encoder's gradient is then an unbiased estimate of that of the negatives "all" at the bank's embeddings. To be used with a
    `refresh` of some percent of the labels; with fewer it is noise."""
    positives: float = Field(default=1.0, ge=0, le=1)
    """Share of the batch's distinct positives that is encoded, drawn at random; the others come from the bank, as all labels
    do, and their residual vectors are trained all the same."""


class InBatchConfig(NegativesConfig):
    """A step scores the positives of its batch and no others."""

    only_positives: ClassVar[bool] = True

    kind: Literal["in-batch"] = "in-batch"
    """The batch's positives."""


class SampledConfig(NegativesConfig):
    """A step scores labels drawn uniformly, with the log-q correction."""

    kind: Literal["sampled"] = "sampled"
    """Labels drawn at random."""
    count: int = Field(default=8192, ge=1)
    """Number of labels drawn in a step."""


class ShortlistConfig(NegativesConfig):
    """A step scores hard negatives mined from an index of all labels as the model embeds them."""

    kind: Literal["shortlist"] = "shortlist"
    """Hard negatives, mined."""
    size: int = Field(default=8, ge=1)
    """Labels of each query in a step, drawn from its window."""
    window_start: int = Field(default=0, ge=0)
    """First rank of the window, counted from 0 among the query's labels that are not positive."""
    window_end: int = 32
    """Rank at which the window ends, not in it."""
    refresh_steps: int = Field(default=500, ge=1)
    """Steps after which the window is mined again, in the background, for use the same number of steps later."""
    index: str = "exact"
    """Index that is mined: "exact", or a FAISS factory string."""

    @model_validator(mode="after")
    def _window(self) -> ShortlistConfig:
        if self.window_end < self.window_start + self.size:
            raise ConfigError(
                f"negatives.shortlist.window_end must be at least window_start + size, {self.window_start + self.size}, "
                f"but is {self.window_end}."
            )
        return self


class ClustersConfig(NegativesConfig):
    """Batches made of balanced clusters of similar queries, so that in-batch negatives are hard."""

    only_positives: ClassVar[bool] = True

    kind: Literal["clusters"] = "clusters"
    """The batch's positives, in batches of similar queries."""
    first_epoch: int = Field(default=2, ge=1)
    """First epoch, counted from 1, with such batches; batches are random before it."""
    refresh_epochs: int = Field(default=1, ge=1)
    """Epochs between two clusterings."""
    size: int = Field(default=8, ge=1)
    """Queries of a cluster at first."""
    doubling_epochs: tuple[int, ...] = ()
    """Epochs, counted from 1, from which on the size is doubled (again)."""


NEGATIVES_SECTIONS: Registry[type[NegativesConfig]] = Registry(
    "kind of negatives",
    {
        "all": AllConfig,
        "bank": BankConfig,
        "in-batch": InBatchConfig,
        "sampled": SampledConfig,
        "shortlist": ShortlistConfig,
        "clusters": ClustersConfig,
    },
)
"""The section of each kind of negatives."""
