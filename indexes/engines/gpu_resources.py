"""FAISS's working memory and streams on GPUs: one of each device for the whole process, used by one thread at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from xmc.indexes.contract import Devices
from xmc.indexes.library import faiss
from xmc.kernels.forks import refuse_device_of_parent, renew_in_children

__all__ = ["WORKING_BYTES", "gpu_numbers", "held_gpus", "resources_of"]

WORKING_BYTES = 512 << 20
"""Memory that FAISS takes of a device for what searches need; where one needs more, it is allocated for that search."""


class _Gpus:
    """FAISS's resources by the number of a device, and a lock for each: FAISS's are not made for several threads."""

    def __init__(self) -> None:
        self.renew_locks()
        renew_in_children(self)

    def renew_locks(self) -> None:
        """See xmc.kernels.forks.Renewable; what the parent had on devices is out of a child's reach."""
        self._opening = threading.Lock()
        self._locks: dict[int, Any] = {}
        self._resources: dict[int, Any] = {}

    def resources(self, number: int) -> Any:
        """FAISS's StandardGpuResources of a device, made at first use."""
        refuse_device_of_parent(f"cuda:{number}")
        with self._opening:
            if number not in self._resources:
                resources = faiss.StandardGpuResources()
                resources.setTempMemory(WORKING_BYTES)
                self._resources[number] = resources
            return self._resources[number]

    def lock(self, number: int) -> Any:
        """Held while FAISS uses a device."""
        with self._opening:
            return self._locks.setdefault(number, threading.RLock())


_gpus = _Gpus()


def gpu_numbers(devices: Devices) -> tuple[int, ...]:
    """The numbers of GPUs that devices are, each once; () where any of them is none, and for the processor."""
    if not devices or any(device.partition(":")[0] != "cuda" for device in devices):
        return ()
    numbers = [device.partition(":")[2] or str(torch.cuda.current_device()) for device in devices]
    return tuple(dict.fromkeys(map(int, numbers)))


def resources_of(number: int) -> Any:
    """FAISS's StandardGpuResources of a device, whose working memory is WORKING_BYTES."""
    return _gpus.resources(number)


@contextlib.contextmanager
def held_gpus(numbers: Sequence[int]) -> Iterator[None]:
    """A context in which no other thread of this process uses these devices through FAISS; InputError after a fork."""
    with contextlib.ExitStack() as stack:
        for number in sorted(numbers):
            refuse_device_of_parent(f"cuda:{number}")
            stack.enter_context(_gpus.lock(number))
        yield
