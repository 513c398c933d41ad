"""Processor threads of searches: those that run at the same time share what one alone would use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from xmc.indexes.library import faiss
from xmc.kernels.forks import renew_in_children

__all__ = ["shared_threads"]


class _Searches:
    """The number of searches that run now in this process."""

    def __init__(self) -> None:
        self.renew_locks()
        renew_in_children(self)

    def renew_locks(self) -> None:
        """See xmc.kernels.forks.Renewable; the parent's searches do not run in a child either."""
        self._lock, self._running = threading.Lock(), 0

    def change(self, by: int) -> int:
        """Add `by`, and return the number there is then."""
        with self._lock:
            self._running += by
            return self._running


_searches = _Searches()


@contextlib.contextmanager
def shared_threads() -> Iterator[None]:
    """Give a search in FAISS its share of the threads: all of them, divided by the searches that run now, at least one.

    "All of them" is what the calling thread has set by `faiss.omp_set_num_threads`, or OMP_NUM_THREADS, or the cores.
    FAISS keeps that number for each thread; it is put back afterwards.
    """
    if faiss is None:
        yield
        return
    everything = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, everything // _searches.change(1)))
    try:
        yield
    finally:
        _searches.change(-1)
        faiss.omp_set_num_threads(everything)
