"""What training minimises: the loss, which positives enter it, and what a teacher adds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from xmc.config.field_errors import FieldError
from xmc.config.kinds import Family
from xmc.config.losses import LOSS_SECTIONS, DecoupledSoftmaxConfig, LossConfig, two_positive
from xmc.config.section import Section
from xmc.errors import ConfigError

__all__ = ["DistillationConfig", "ObjectiveConfig"]


def _several(value: Any) -> Any:
    """One text stands for a list of it, and "" for none."""
    return ((value,) if value else ()) if isinstance(value, str) else value


_SEVERAL = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class DistillationConfig(Section):
    """Teachers, from whose scores the model learns too."""

    teacher: Annotated[tuple[str, ...], BeforeValidator(_several), WithJsonSchema(_SEVERAL)] = ()
    """A run directory over labels of the same uids, or a list of several; none by default."""
    choose: Literal["all", "surest"] = "all"
    """Who teaches a query where there are several teachers: "all", in the mean; or the "surest", whose best label is
    furthest above the mean of its best labels, at the temperature that it was trained with."""
    labels: int = Field(default=32, ge=1)
    """Number of a teacher's best labels of each query that are learned from."""
    temperature: float = Field(default=0.05, gt=0)
    """Temperature of the softmax of a teacher's scores that weights its labels."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """Weight of what teachers say; the rest, up to 1, is that of the loss on the positives."""

    @model_validator(mode="after")
    def _told_apart(self) -> DistillationConfig:
        if self.choose == "surest" and self.labels < 2:
            raise ConfigError(
                "objective.distillation.choose is 'surest', by how far a teacher's best label is above the mean of its best "
                "labels, which is nothing where labels is 1; set labels to 2 or more, or choose to all."
            )
        return self


class ObjectiveConfig(Section):
    """What training minimises."""

    loss: Annotated[LossConfig, Family(LOSS_SECTIONS, "decoupled_softmax")] = DecoupledSoftmaxConfig()
    """The loss; see xmc.kernels.losses. "soft_topk" and "binary_cross_entropy" need the negatives "all" or "bank"."""
    temperature: float = Field(default=0.045, gt=0)
    """Temperature τ of the loss, the start value when `learn_temperature` is set."""
    learn_temperature: bool = False
    """Train the temperature too."""
    positives_per_query: int | None = Field(default=None, ge=1)
    """Positives of a query in a step, drawn at random; the query's others count nowhere. None for all."""
    positives_drawn: Literal["uniform", "inverse_propensity"] = "uniform"
    """How positives are drawn: with equal chances ("uniform"), or the rarer the likelier ("inverse_propensity")."""
    positives_propensity: tuple[float, ...] = (0.55, 1.5)
    """A and B of the propensity model by which positives are drawn."""
    in_batch_positives: bool = False
    """A query's other positives, where the step scores them for another query, are positives of it as well."""
    nested_dimensions: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """The loss is the mean over embeddings cut to these numbers of dimensions, and whole ones (Matryoshka embeddings, Kusupati
    et al., NeurIPS 2022), so that the run can be served at each of them; see Retriever.cut."""
    relevance_weights: bool = False
    """Weight positives by the data set's relevance."""
    distillation: DistillationConfig = DistillationConfig()
    """Teachers to learn from."""

    _two = field_validator("positives_propensity")(two_positive)

    @field_validator("nested_dimensions")
    @classmethod
    def _each_once(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(values)) < len(values):
            raise FieldError("must name each dimension once")
        return values
