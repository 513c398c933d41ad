"""From the host to where an encoder computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["on_device"]


def on_device(values: Tensor | npt.NDArray[Any], device: torch.device) -> Tensor:
    """Values of the host on a device. A copy to a GPU goes through pinned memory and is not waited for."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
