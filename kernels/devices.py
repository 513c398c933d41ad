"""What depends on where tensors are: whether they may be asked for their values, and how autocast is kept away."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["values_are_free", "without_autocast"]


def values_are_free(*tensors: Tensor) -> bool:
    """Whether the values of all these tensors are at hand.

    On a CPU they are. Asking a device for one waits for everything that it has been given to do, and cannot be captured in
    a CUDA graph; what is checked by value is therefore checked on a CPU only.
    """
    return all(tensor.device.type == "cpu" for tensor in tensors)


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on the tensor's device compute in the dtypes that they are given."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
