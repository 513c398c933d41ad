"""Processor threads of searches: those that run at the same time share what one alone would use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from xmc.indexes.library import faiss

__all__ = ["shared_threads"]

_lock = threading.Lock()
_running = 0


@contextlib.contextmanager
def shared_threads() -> Iterator[None]:
    """Give a search in FAISS its share of the threads: all of them, divided by the searches that run now, at least one.

    "All of them" is what the calling thread has set by `faiss.omp_set_num_threads`, or OMP_NUM_THREADS, or the cores.
    FAISS keeps that number for each thread; it is put back afterwards.
    """
    global _running
    if faiss is None:
        yield
        return
    everything = faiss.omp_get_max_threads()
    with _lock:
        _running += 1
        share = max(1, everything // _running)
    faiss.omp_set_num_threads(share)
    try:
        yield
    finally:
        with _lock:
            _running -= 1
        faiss.omp_set_num_threads(everything)
