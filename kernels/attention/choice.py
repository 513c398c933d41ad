"""What computes a call: decided by device, dtype and head size, once for all calls that agree in them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from xmc.errors import ConfigError
from xmc.kernels.dispatch import choose_backend

__all__ = ["AtHand", "at_hand", "engine_of", "flash_fits", "varlen_attention"]

LARGEST_HEAD = 256
"""Head size up to which the kernels have tiles."""

LARGEST_HEAD_EVERYWHERE = 192
"""Head size up to which flash attention has a backward pass on every GPU; above, on those of data centres."""

DATA_CENTRE = (80, 90, 100)
"""Capabilities of GPUs with the shared memory that larger heads take."""


@dataclass(frozen=True)
class AtHand:
    """What a device offers. backend: as `choose_backend` has it; asked: whether a caller named it.

    flash: the capability of a GPU for which PyTorch has attention over segments, such as 90 for 9.0; else 0.
    """

    backend: str
    asked: bool
    flash: int


def at_hand(device: torch.device, dtype: torch.dtype, impl: str | None) -> AtHand:
    """What there is for tensors of a dtype on a device: a constant of a compiled module.

    impl: "triton", "torch" or "reference"; without it the environment variable XMC_KERNELS, and without that the fastest.
    Raises ConfigError for a request that cannot be met.
    """
    backend = choose_backend(impl, torch.empty(0, dtype=dtype, device=device))
    return AtHand(backend, bool(impl or os.environ.get("XMC_KERNELS")), _flash_capability(device))


at_hand._dynamo_marked_constant = True  # type: ignore[attr-defined]
"""What torch.compiler.assume_constant_result does; that imports the compiler, a quarter of the time a search takes to start."""


def engine_of(there: AtHand, dtype: torch.dtype, head_size: int, dropout: bool) -> str:
    """The name of an engine: "reference", "torch" (equal lengths together), "varlen" (PyTorch's for segments) or "triton".

    "varlen" where it fits, unless another was asked for; it is also what "torch" stands for there. Else "triton" where it can
    run, and "torch". Raises ConfigError where "triton" was asked for and cannot compute heads of this size.
    """
    backend = there.backend
    if backend == "triton" and head_size > LARGEST_HEAD:
        if there.asked:
            raise ConfigError(f"heads of size {head_size} exceed {LARGEST_HEAD}, the most of 'triton'; choose 'torch'.")
        backend = "torch"
    if backend == "reference" or (backend == "triton" and there.asked):
        return backend
    return "varlen" if there.flash and flash_fits(dtype, head_size, dropout, there.flash) else backend


def flash_fits(dtype: torch.dtype, head_size: int, dropout: bool, capability: int) -> bool:
    """Whether PyTorch's attention over segments computes this, on a GPU of a capability such as 90 for 9.0."""
    if dtype not in (torch.float16, torch.bfloat16) or head_size % 8 or dropout or capability < min(DATA_CENTRE):
        return False
    return head_size <= (LARGEST_HEAD if capability in DATA_CENTRE else LARGEST_HEAD_EVERYWHERE)


@lru_cache
def _flash_capability(device: torch.device) -> int:
    """The capability of a GPU for which PyTorch has attention over segments; 0 for anything else."""
    if device.type != "cuda" or not torch.backends.cuda.is_flash_attention_available() or varlen_attention() is None:
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@lru_cache
def varlen_attention() -> Callable[..., Any] | None:
    """PyTorch's attention over segments, where it takes a scale, a window and fewer heads of keys; else None."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    taken = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= set(taken) else None
