"""Typed configuration: an unknown key, a wrong type or a value out of range is an error before anything runs."""

from __future__ import annotations

from xmc.config.training import TrainConfig

__all__ = ["TrainConfig"]
