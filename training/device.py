"""Where a run trains."""

from __future__ import annotations

import os

import torch

from xmc.config import TrainConfig

__all__ = ["training_device"]


def training_device(config: TrainConfig) -> torch.device:
    """The configured device; "auto" is this process's GPU where there is one and the encoder runs on it, else the CPU."""
    if config.device == "auto":
        on_gpu = not config.encoder.only_on_cpu and torch.cuda.is_available()
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    return torch.device(config.device)
