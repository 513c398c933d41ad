"""Registries: names to members, with errors that help."""

from __future__ import annotations

import doctest

import pytest

from xmc import registry
from xmc.errors import ConfigError
from xmc.registry import Registry


def test_a_name_that_is_not_there_brings_the_nearest() -> None:
    losses = Registry("loss", {"softmax": 1, "triplet_margin": 2})
    assert losses["softmax"] == 1
    assert dict(losses) == {"softmax": 1, "triplet_margin": 2}
    with pytest.raises(
        ConfigError, match=r"no loss 'softmx'; choose one of softmax, triplet_margin\. Did you mean 'softmax'\?"
    ):
        losses["softmx"]
    with pytest.raises(ConfigError, match=r"no loss 'x'; choose one of softmax, triplet_margin\.$"):
        losses["x"]


def test_a_name_is_given_once() -> None:
    losses: Registry[int] = Registry("loss")
    losses.register("a", 1)
    with pytest.raises(ConfigError, match="a loss 'a' already"):
        losses.register("a", 2)
    losses.unregister("a")
    assert "a" not in losses
    with pytest.raises(ConfigError, match="choose one of none"):
        losses.unregister("a")


def test_the_example_holds() -> None:
    assert doctest.testmod(registry).failed == 0
