"""How much memory a call may take for what it holds of the scores meanwhile."""

from __future__ import annotations

from typing import Literal

import torch

from xmc.errors import ConfigError

__all__ = ["TileBytes", "kept_budget", "tile_budget"]

TileBytes = int | Literal["auto"]
"""Largest size of a buffer of scores, or of their gradients, in bytes; "auto" for `tile_budget`'s choice."""

CPU_BYTES = 64 * 2**20
"""The choice on a CPU, and the least on a GPU."""

GPU_BYTES = 2**30
"""The most on a GPU: 131,072 labels of 4,096 queries in 16 bits, at which a prototype of the backward pass on an H100 cost no
more than the products that it was made of; at 32,768 labels 1% more, at 8,192 a third."""

GPU_SHARE = 8
"""At most this part of the free memory of a GPU, one in `GPU_SHARE`."""


def tile_budget(tile_bytes: TileBytes, device: torch.device) -> int:
    """The bytes that `tile_bytes` stands for on a device.

    "auto" is 64 MiB on a CPU. On a GPU it is an eighth of the free memory, what torch keeps for later included, rounded down
    to a power of two between 64 MiB and 1 GiB: a round number, so that a run cuts its tiles as the run before it did.
    Raises ConfigError for anything that is neither "auto" nor a positive whole number.
    """
    if tile_bytes != "auto":
        if isinstance(tile_bytes, bool) or not isinstance(tile_bytes, int) or tile_bytes < 1:
            raise ConfigError(f'tile_bytes must be "auto" or a number of bytes, at least 1, but is {tile_bytes!r}.')
        return tile_bytes
    if device.type != "cuda":
        return CPU_BYTES
    reserved, allocated = _held_by_torch(device)
    if torch.cuda.is_current_stream_capturing():  # the driver is not to be asked then
        free = torch.cuda.get_device_properties(device).total_memory - reserved
    else:
        free = torch.cuda.mem_get_info(device)[0]
    return share_of(free + reserved - allocated)


def _held_by_torch(device: torch.device) -> tuple[int, int]:
    """Bytes of a GPU that torch has reserved, and those of them that tensors take.

    torch.cuda.memory_reserved and memory_allocated each sort all that the allocator counts: a third of the processor's time
    of a forward pass, seen on an H200.
    """
    held = torch.cuda.memory_stats_as_nested_dict(device)  # empty before the first tensor
    reserved, allocated = (
        held[name]["all"]["current"] if held else 0 for name in ("reserved_bytes", "allocated_bytes")
    )
    return reserved, allocated


def kept_budget(keep_bytes: int) -> int:
    """The bytes themselves; ConfigError for anything that is no whole number from 0 on."""
    if isinstance(keep_bytes, bool) or not isinstance(keep_bytes, int) or keep_bytes < 0:
        raise ConfigError(f"keep_bytes must be a number of bytes, at least 0, but is {keep_bytes!r}.")
    return keep_bytes


def share_of(free: int) -> int:
    """The choice on a GPU that has `free` bytes of memory left."""
    most = min(GPU_BYTES, max(CPU_BYTES, free // GPU_SHARE))
    return 1 << (most.bit_length() - 1)
