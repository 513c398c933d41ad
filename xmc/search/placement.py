"""Where a retriever's encoder runs: chosen when a run is opened, from what this machine has; nothing of it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch

from xmc.config import ENCODER_SECTIONS
from xmc.encoders.dual import DualEncoder
from xmc.encoders.precision import Precision
from xmc.errors import ConfigError
from xmc.indexes.placement import devices_of

__all__ = ["place_model"]


def place_model(model: DualEncoder, device: str | Sequence[str] = "auto", precision: Precision = "auto") -> None:
    """Move a model to where it encodes: the first of the devices; encoders that run on the processor alone stay there.

    device: "auto" for the GPU, where there is one; a device of torch's, or several. ConfigError for one that is not there.
    precision: what it computes in there; ConfigError for a word that is no precision.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}, but is {precision!r}.")
    first, *_ = (*devices_of(device), "cpu")
    movable = not any(ENCODER_SECTIONS[encoder.kind].only_on_cpu for encoder in model.encoders)
    model.place(torch.device(first if movable else "cpu"))
    model.compute_in(precision)
