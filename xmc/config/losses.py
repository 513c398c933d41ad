"""The loss: a section for each kind; xmc.kernels.losses says what they compute."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from xmc.config.field_errors import FieldError
from xmc.config.section import KindSection
from xmc.errors import ConfigError
from xmc.registry import Registry

__all__ = [
    "LOSS_SECTIONS",
    "BinaryCrossEntropyConfig",
    "DecoupledSoftmaxConfig",
    "LossConfig",
    "MultiLabelClusterDiscriminationConfig",
    "SoftTopkConfig",
    "SoftmaxConfig",
    "TripletMarginConfig",
    "two_positive",
]


def two_positive(values: tuple[float, ...]) -> tuple[float, ...]:
    """A and B of a propensity model; raises FieldError unless they are two numbers above 0."""
    if len(values) != 2 or min(values) <= 0:
        raise FieldError("must be two numbers A and B > 0")
    return values


class LossConfig(KindSection):
    """The base of losses' sections; a new kind is registered in LOSS_SECTIONS."""

    over_all_labels: ClassVar[bool] = False
    """Whether the loss is defined over all labels of a query, so that a step must score them all."""

    @property
    def propensity_model(self) -> tuple[float, float] | None:
        """A and B of the propensities (see xmc.metrics.propensities) that the loss takes; None for a loss without."""
        return None

    def settings(self) -> dict[str, Any]:
        """The arguments with which the loss of this kind in xmc.kernels.losses is called: by default the section's keys."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}


class SoftmaxConfig(LossConfig):
    """The softmax cross-entropy, in which the positives share the probability."""

    kind: Literal["softmax"] = "softmax"
    """The softmax cross-entropy."""


class DecoupledSoftmaxConfig(LossConfig):
    """The softmax cross-entropy of each positive against the negatives alone."""

    kind: Literal["decoupled_softmax"] = "decoupled_softmax"
    """The decoupled softmax."""


class MultiLabelClusterDiscriminationConfig(LossConfig):
    """Multi-label cluster discrimination (An et al., ECCV 2024)."""

    kind: Literal["multi_label_cluster_discrimination"] = "multi_label_cluster_discrimination"
    """Multi-label cluster discrimination."""


class SoftTopkConfig(LossConfig):
    """The soft top-k loss (DEXML), of five labels."""

    over_all_labels: ClassVar[bool] = True

    kind: Literal["soft_topk"] = "soft_topk"
    """The soft top-k loss."""


class BinaryCrossEntropyConfig(LossConfig):
    """The binary cross-entropy of every label."""

    over_all_labels: ClassVar[bool] = True

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    """The binary cross-entropy."""
    propensities: Literal["none", "unbiased", "bound"] = "none"
    """Correct for relevant labels that nobody marked, by the chance p of a label to be marked (Jain et al., KDD 2016): with
    "unbiased" a positive has the target 1/p, an unbiased estimate of the loss on complete marks that pulls without end;
    "bound" bounds it from below (Qaraei et al., WWW 2021)."""
    propensity: tuple[float, ...] = (0.55, 1.5)
    """A and B of the propensity model."""

    @property
    def propensity_model(self) -> tuple[float, float] | None:
        """`propensity`, where it is used."""
        return None if self.propensities == "none" else (self.propensity[0], self.propensity[1])

    def settings(self) -> dict[str, Any]:
        """As xmc.kernels.losses.binary_cross_entropy calls them; what is not a number comes with the data."""
        return {"bound": True} if self.propensities == "bound" else {}

    _two = field_validator("propensity")(two_positive)


class TripletMarginConfig(LossConfig):
    """A margin between each positive and the hardest negatives; it has no temperature τ."""

    kind: Literal["triplet_margin"] = "triplet_margin"
    """The triplet margin loss."""
    negatives: int = Field(default=10, ge=1)
    """Number of the hardest negatives of each query."""
    least: float = Field(default=0.1, ge=0)
    """The smallest margin: how far a positive and a negative are apart."""
    most: float = 0.3
    """The largest margin."""
    temperature: float = Field(default=0.1, gt=0)
    """Temperature of the softmax that weights the negatives inside of the margin."""

    def settings(self) -> dict[str, Any]:
        """As xmc.kernels.losses.triplet_margin calls them."""
        return {"k": self.negatives, "margins": (self.least, self.most), "temperature": self.temperature}

    @model_validator(mode="after")
    def _ordered(self) -> TripletMarginConfig:
        if self.most < self.least:
            raise ConfigError(
                f"objective.loss.most must be at least objective.loss.least, {self.least}, but is {self.most}."
            )
        return self


LOSS_SECTIONS: Registry[type[LossConfig]] = Registry(
    "loss",
    {
        "softmax": SoftmaxConfig,
        "decoupled_softmax": DecoupledSoftmaxConfig,
        "multi_label_cluster_discrimination": MultiLabelClusterDiscriminationConfig,
        "soft_topk": SoftTopkConfig,
        "binary_cross_entropy": BinaryCrossEntropyConfig,
        "triplet_margin": TripletMarginConfig,
    },
)
"""The section of each kind of loss."""
