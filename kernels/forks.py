"""Forked children: they work in one thread, for the threads of every pool stay behind in the parent.

A child of `fork` has the calling thread alone. The OpenMP libraries of torch, FAISS and numba know nothing of that: in the
thread that forked they wait for ever for a pool that is gone, and numba ends the process. One thread needs no pool.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from xmc.errors import InputError

__all__ = ["Renewable", "in_forked_child", "refuse_device_of_parent", "renew_in_children"]

_LIMITS: dict[str, Callable[[Any], None]] = {
    "torch": lambda torch: torch.set_num_threads(1),
    "faiss": lambda faiss: faiss.omp_set_num_threads(1),
}
"""What tells a library, by the name of its module, to work in one thread."""
_forked = False


class Renewable(Protocol):
    """An object with locks, which in a forked child may be held by a thread that is not there."""

    def renew_locks(self) -> None:
        """Put new locks in the place of those there are."""


_renewable: weakref.WeakSet[Any] = weakref.WeakSet()


def in_forked_child() -> bool:
    """Whether this process was forked by one that had imported this module."""
    return _forked


def renew_in_children(owner: Renewable) -> None:
    """Renew the locks of an object in every child that is forked while the object lives."""
    _renewable.add(owner)


def refuse_device_of_parent(device: str) -> None:
    """Raise InputError in a forked child for a GPU that the parent used: CUDA cannot be used on both sides of a fork."""
    if not _forked or device.partition(":")[0] != "cuda":
        return
    import torch

    if not torch.cuda.is_initialized():  # what the child itself has loaded there has initialised it
        raise InputError(
            f"This process was forked by one that uses {device!r}, which a forked child cannot use. Start processes with "
            f'multiprocessing.get_context("spawn"), or load the retriever in the child (gunicorn: without --preload).'
        )


def _in_child() -> None:
    global _forked
    _forked = True
    for owner in list(_renewable):
        owner.renew_locks()
    for name, limit in _LIMITS.items():
        if name in sys.modules:
            limit(sys.modules[name])


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_in_child)
