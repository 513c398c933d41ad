"""Where an index runs: chosen when it is opened, from what this machine has; nothing of it is stored."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from xmc.errors import ConfigError
from xmc.indexes.contract import Devices

__all__ = ["automatic_devices", "devices_of", "require_device"]

logger = logging.getLogger(__name__)

SPARE = 1.25
"""A GPU takes the embeddings of an index by itself where it has this multiple of their bytes free: searches need some too."""


def devices_of(device: str | Sequence[str] = "auto", size: int = 0) -> Devices:
    """The devices of an index: for "auto" the GPU, where there is one with room for `size` bytes; () for the processor.

    device: "auto", "cpu", a device of torch's such as "cuda:1", or a list of those, which then share the labels.
    Raises ConfigError for a device that is not there.
    """
    if isinstance(device, str) and device == "auto":
        return automatic_devices(_free_bytes(), size)
    if isinstance(device, str):
        return () if require_device(device) == "cpu" else (device,)
    return tuple(require_device(name) for name in device)


def _free_bytes() -> int | None:
    """Free bytes of the GPU; None without one."""
    try:
        return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    except RuntimeError as error:  # in a forked child, where the parent used it
        raise ConfigError(
            f'The GPU cannot be used by this process ({str(error).splitlines()[0]}): name device="cpu".'
        ) from error


def automatic_devices(free: int | None, size: int) -> Devices:
    """The devices of "auto" for an index of `size` bytes, given the free bytes of the GPU, None without one."""
    if free is None:
        return ()
    if SPARE * size > free:
        logger.info(
            "the index of %d bytes stays on the processor: the GPU has %d bytes free; device='cuda' asks for it all the same",
            size,
            free,
        )
        return ()
    return ("cuda",)


def require_device(name: str) -> str:
    """The name of a device that is there; ConfigError otherwise."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f'There is no device {name!r} here ({str(error).splitlines()[0]}). Name another one, or leave it to "auto".'
        ) from error
    return name
