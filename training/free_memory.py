"""The memory that is free where a run trains."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["free_memory"]

MEMINFO = Path("/proc/meminfo")
"""Where Linux says what is free."""
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may have, and has."""


def free_memory(device: torch.device) -> float | None:
    """Bytes that this process may still take on a device; None where the system does not say.

    Of a GPU what the driver has free, and what torch keeps for later. Of a machine what programs may take without swapping,
    and no more than the container's limit leaves, split between the run's processes on it.
    """
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return None
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    free = _free_on_host()
    return None if free is None else free / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _free_on_host() -> float | None:
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        free = 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return _free_pages()
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    return free if limit is None or used is None else max(0.0, min(free, limit - used))


def _free_pages() -> float | None:
    """Of other systems: half of all memory, which is what they say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, OSError, ValueError):
        return None


def _number(file: Path) -> float | None:
    """The number in a file; None where there is no such file, or another word in it ("max")."""
    try:
        return float(int(file.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None
