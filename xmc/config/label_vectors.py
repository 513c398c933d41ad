"""What a label has besides its text: a section for each kind of label vectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xmc.config.section import KindSection
from xmc.registry import Registry

__all__ = ["LABEL_VECTOR_SECTIONS", "LabelVectorsConfig", "NoVectorsConfig", "PrototypesConfig", "ResidualConfig"]


class LabelVectorsConfig(KindSection):
    """The base of label vectors' sections. What a kind does stands in the model and in training, which refuse further kinds."""


class NoVectorsConfig(LabelVectorsConfig):
    """A label is its encoded text alone."""

    kind: Literal["none"] = "none"
    """No label vectors."""


class ResidualConfig(LabelVectorsConfig):
    """A learned vector is added to each encoded label (the classifier part)."""

    kind: Literal["residual"] = "residual"
    """Residual label vectors."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of labels whose residual vector is left out of a step, so that the encoder learns too."""
    moments: Literal["float32", "bfloat16", "int8"] = "float32"
    """How the two moments of each label vector are stored: bfloat16 takes half, int8 about a quarter of float32's memory."""
    memory: Literal["device", "host"] = "device"
    """Where label vectors and their moments are: "host" leaves them in host memory, where they do not fit the device; a step's
    rows go to the device while it encodes texts, and their gradients come back."""


class PrototypesConfig(LabelVectorsConfig):
    """A label's text, a free vector of its cluster and its queries' centroid, combined (PRIME)."""

    kind: Literal["prototypes"] = "prototypes"
    """Label prototypes."""
    clusters: int = Field(default=65_536, ge=1)
    """Number of free vectors, at most one a label."""
    initial: Literal["means", "xavier"] = "means"
    """What free vectors start as: the "means" of their labels' texts, or random ("xavier")."""
    centroids: Literal["stale", "moving_average"] = "stale"
    """Centroids of queries: "stale", from what queries were when last in a batch, anew before each epoch; or "moving_average",
    at each step. Evaluated and saved models have those of the model as it then is."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Share of a centroid that stays at a step, with the centroids "moving_average"."""
    heads: int = Field(default=8, ge=1)
    """Attention heads of the layer that combines."""
    feedforward: int = Field(default=1024, ge=1)
    """Width of the feed-forward part of the layer that combines."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the layer that combines."""
    text_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss that ranks labels by their texts alone, beside that of the prototypes."""
    label_to_query_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss that ranks queries for each label's text, beside that of the prototypes."""
    regularisation: float = Field(default=0.1, ge=0)
    """Weight of the regularisation of the prototypes' lead over texts."""
    regularisation_negatives: int = Field(default=10, ge=1)
    """Number of the hardest negatives of each query that the regularisation compares with."""


LABEL_VECTOR_SECTIONS: Registry[type[LabelVectorsConfig]] = Registry(
    "kind of label vectors", {"none": NoVectorsConfig, "residual": ResidualConfig, "prototypes": PrototypesConfig}
)
"""The section of each kind of label vectors."""
