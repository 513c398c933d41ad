"""Where a retriever's encoder runs: chosen when a run is opened, from what this machine has; nothing of it is stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xmc.config import ENCODER_SECTIONS
from xmc.encoders.dual import DualEncoder
from xmc.indexes.placement import devices_of

__all__ = ["place_model"]


def place_model(model: DualEncoder, device: str | Sequence[str] = "auto") -> None:
    """Move a model to where it encodes: the first of the devices; encoders that run on the processor alone stay there.

    device: "auto" for the GPU, where there is one; a device of torch's, or several. ConfigError for one that is not there.
    """
    first, *_ = (*devices_of(device), "cpu")
    movable = not any(ENCODER_SECTIONS[encoder.kind].only_on_cpu for encoder in model.encoders)
    model.place(torch.device(first if movable else "cpu"))
