"""Numba's parallel kernels, called from several threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numba

__all__ = ["kernels_may_run", "several_callers_may_run"]

_turn = threading.Lock()


@contextlib.contextmanager
def kernels_may_run() -> Iterator[None]:
    """Wait for the turn to call parallel kernels, where numba's threading layer is the one that takes one caller at a time.

    TBB and OpenMP take any number. "workqueue", which numba falls back to where neither is installed, ends the process when
    two threads call it. Which it is shows once a kernel has run; until then callers take turns.
    """
    with contextlib.nullcontext() if several_callers_may_run() else _turn:
        yield


def several_callers_may_run() -> bool:
    """Whether numba's threading layer takes several callers at once; False until the first parallel kernel has run."""
    try:
        return str(numba.threading_layer()) != "workqueue"
    except ValueError:
        return False
