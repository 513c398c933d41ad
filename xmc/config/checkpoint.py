"""Checkpoints while training goes."""

from __future__ import annotations

from pydantic import Field

from xmc.config.section import Section

__all__ = ["CheckpointConfig"]


class CheckpointConfig(Section):
    """Checkpoints, from which `resume` goes on; they stand beside the run directory, and go when the run is whole."""

    minutes: float | None = Field(default=10.0, ge=0)
    """Minutes of training that may be lost; none for no limit in time."""
    steps: int | None = Field(default=None, ge=1)
    """Steps that may be lost; none for no limit in steps."""
    keep: int = Field(default=2, ge=1)
    """Number of the latest checkpoints that are kept."""
