"""When a tensor may be asked for its values."""

from __future__ import annotations

from torch import Tensor

__all__ = ["values_are_free"]


def values_are_free(*tensors: Tensor) -> bool:
    """Whether the values of all these tensors are at hand.

    On a CPU they are. Asking a device for one waits for everything that it has been given to do, and cannot be captured in
    a CUDA graph; what is checked by value is therefore checked on a CPU only.
    """
    return all(tensor.device.type == "cpu" for tensor in tensors)
