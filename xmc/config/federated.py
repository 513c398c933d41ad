"""Federated rounds: how often clients' weights are averaged, and what clients do with queries that are not labelled."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from xmc.config.section import Section
from xmc.config.training import TrainConfig
from xmc.errors import ConfigError

__all__ = ["FederatedConfig"]

ONLY: dict[str, Any] = {
    "validation.share": 0.0,
    "validation.steps": None,
    "calibration": 0.0,
    "memory": "none",
    "rerank": "none",
    "data.bags.separator": "",
    "data.bags.tokens": None,
    "objective.distillation.teacher": [],
    "supervision.estimator": "none",
    "encoder.shard": False,
}
"""What keys of a training configuration must be, where they are there: federated rounds have none of what others ask for."""


class FederatedConfig(Section):
    """How rounds go; what clients do in one is a TrainConfig, whose `epochs` are those of all rounds together."""

    rounds: int | None = Field(default=None, ge=1)
    """Number of rounds, at most the number of epochs; null for one round an epoch."""
    pseudo_labels: bool = True
    """Queries that are not labelled get the label that the client's own model or the average is surer of (FedLabel)."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Probability of that label, of all labels, from which on it is taken."""
    consistency: float = Field(default=0.5, ge=0, lt=1)
    """Weight of what the average says of such a query where both models name the same label; 0 for none."""

    def rounds_of(self, config: TrainConfig) -> int:
        """Number of rounds of a training. Raises ConfigError for more of them than epochs, and for keys that do not fit."""
        flat = config.flat()
        for key, only in ONLY.items():
            if flat.get(key, only) != only:
                raise ConfigError(
                    f"{key} is {flat[key]!r}, which federated rounds have nothing for; leave it out, so that it is {only!r}."
                )
        if config.label_vectors.kind == "prototypes":
            raise ConfigError(
                "label_vectors is 'prototypes', whose weights clients cannot average; set it to residual."
            )
        rounds = config.epochs if self.rounds is None else self.rounds
        if rounds > config.epochs:
            raise ConfigError(
                f"There are {rounds} rounds and {config.epochs} epochs; set epochs to at least {rounds}, or rounds to at most "
                f"{config.epochs}."
            )
        return rounds
