"""What training takes for true where labels are missing, wrong, partial, counted or voted on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from xmc.config.section import Section
from xmc.errors import ConfigError

__all__ = ["SupervisionConfig"]


class SupervisionConfig(Section):
    """What training takes for true where labels are missing, wrong, partial, counted or voted on."""

    estimator: Literal["none", "posterior"] = "none"
    """"posterior": how probable it is that a pair is relevant is estimated from scores and evidence, and decides which pairs
    are positives, negatives or left out; "none": what the data set says."""
    recorded: Annotated[float, Field(gt=0, le=1)] | Literal["propensity", "estimate"] = 1.0
    """Share of the relevant pairs that the data set gives: a number; "propensity", by how often each label is given (Jain et
    al. 2016); or "estimate", from a trusted validation split."""
    wrong: Annotated[float, Field(ge=0, lt=1)] | Literal["estimate"] = 0.0
    """Share of the given pairs that are wrong: a number, or "estimate"."""
    positives: float | None = Field(default=None, gt=0)
    """Number of relevant labels that a query has in the mean, where fewer are given; null where `recorded` says it."""
    candidates: int = Field(default=32, ge=1)
    """Best-scoring labels of each query, besides those with evidence, that may be found relevant."""
    first_epoch: int = Field(default=2, ge=1)
    """Epoch before which the first estimate comes, counted from 0; until then, training takes the data set as it is."""
    refresh_epochs: int = Field(default=1, ge=1)
    """Epochs from one estimate to the next, of pairs with counts, votes or candidates."""
    background: bool = False
    """Make estimates in a thread while training goes on; each is then used `refresh_epochs` later."""
    held_out: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the given pairs that are left out until the first estimate: their scores tell what unseen pairs score."""
    accept: float = Field(default=0.5, gt=0, le=1)
    """Probability from which on a pair with evidence is a positive, by that weight."""
    accept_new: float = Field(default=0.8, gt=0, le=1)
    """Probability from which on a pair without evidence is a positive. What training finds by itself is mostly of frequent
    labels, which takes from rare ones."""
    doubt: float = Field(default=0.1, ge=0, le=1)
    """Probability from which on a pair that is not given is less of a negative: by one less its probability. A pair that is
    voted on is a positive by its probability, too, from there on."""
    rejected_weight: float = Field(default=1.0, ge=1)
    """How much a rejected pair counts as a negative."""
    cap: bool = True
    """No label gets more new positives than `recorded` says that it lacks."""

    @model_validator(mode="after")
    def _fits_together(self) -> SupervisionConfig:
        for key, accepted in (("accept", self.accept), ("accept_new", self.accept_new)):
            if self.doubt > accepted:
                raise ConfigError(
                    f"supervision.doubt is {self.doubt}, above supervision.{key}, {accepted}; let it be at most that."
                )
        if self.positives is not None and self.recorded != 1.0:
            raise ConfigError(
                "supervision.positives and supervision.recorded both say how many pairs are missing; leave out one of them."
            )
        return self
