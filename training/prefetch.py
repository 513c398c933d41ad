"""The next batch is made ready by a thread while the present one is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from xmc.arrays import Rows

__all__ = ["Prefetcher"]

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """A context that iterates over make(first_step + i, rows[i]), one ahead. An error in `make` is raised where it is due."""

    def __init__(self, rows: Sequence[Rows], first_step: int, make: Callable[[int, Rows], T]) -> None:
        self._rows, self._first_step, self._make = rows, first_step, make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xmc-batches")

    def __iter__(self) -> Iterator[T]:
        coming: Future[T] | None = None
        for place in range(len(self._rows) + 1):
            current = coming
            if place < len(self._rows):
                coming = self._thread.submit(self._make, self._first_step + place, self._rows[place])
            if current is not None:
                yield current.result()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
