"""The group of processes that torchrun's environment describes."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from xmc.training.distributed.world import World

__all__ = ["distributed"]

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than embedding and saving a large label set takes. torchrun ends a job
in which a process died at once, whatever this is."""
LINGER = 0.2
"""Seconds before a process leaves. A thread of gloo's that still holds a tensor then aborts the process as it exits, and the
whole job with it (github.com/pytorch/pytorch/pull/179291). Threads end with their group, but torch's caches may keep that."""


@contextlib.contextmanager
def distributed(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment describes, or one process. Ends the process group on leaving."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield World()
        return
    ours = not dist.is_initialized()
    if ours:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Some of what crosses is on the host, whatever the device.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
        # None leaves while the root still writes; and the group's threads let go of the last tensors before one leaves.
        dist.barrier(device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None)
        time.sleep(LINGER)
    finally:
        if ours:
            gc.collect()
            dist.destroy_process_group()
