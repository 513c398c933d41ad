"""Which engine computes: Triton on CUDA, torch tiles anywhere, or the dense float64 reference."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from xmc.errors import ConfigError

__all__ = ["BACKENDS", "choose_backend"]

BACKENDS = ("triton", "torch", "reference")


def choose_backend(impl: str | None, tensor: Tensor, *, on_device: bool = True) -> str:
    """The engine for `tensor`: `impl`, else the environment variable XMC_KERNELS, else by device and dtype.

    Without a request, Triton computes what is on CUDA in float32, float16 or bfloat16, if it is installed, and torch
    tiles everything else. An explicit request is met or refused, never replaced. on_device: whether what is computed has
    device functions for Triton.

    Raises ConfigError for a name that is not in BACKENDS, and for Triton where it cannot run: not installed, float64, or
    tensors that are not on CUDA (unless TRITON_INTERPRET=1 was set before triton was imported).
    """
    name = impl or os.environ.get("XMC_KERNELS")
    if not name:
        return "torch" if tensor.device.type != "cuda" or _why_not_triton(tensor, on_device) else "triton"
    origin = "impl" if impl else "the environment variable XMC_KERNELS"
    if name not in BACKENDS:
        raise ConfigError(f"{origin} asks for the kernel backend {name!r}; choose one of {', '.join(BACKENDS)}.")
    why_not = _why_not_triton(tensor, on_device) if name == "triton" else None
    if why_not:
        raise ConfigError(f"{origin} asks for the kernel backend 'triton', but {why_not}; choose 'torch'.")
    return name


def _why_not_triton(tensor: Tensor, on_device: bool) -> str | None:
    if not on_device:
        return "this reduction has no device functions"
    if find_spec("triton") is None:
        return 'triton is not installed (pip install "triton>=3.6,<3.10")'
    if tensor.dtype == torch.float64:
        return "it computes in float32, not float64"
    if tensor.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensors are on {tensor.device}"
    return None
