"""Federated rounds: clients that share no text learn one encoder, whose weights are averaged."""

from __future__ import annotations

from xmc.training.federated.rounds import FederatedResult, federate

__all__ = ["FederatedResult", "federate"]
