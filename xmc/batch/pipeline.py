"""Steps that work on a stream one after another, each ahead of the next by a bounded number of items."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

__all__ = ["Pipeline"]

A = TypeVar("A")
B = TypeVar("B")
AHEAD = 2
"""Number of items that a step may have waiting for the next one."""


class Pipeline:
    """A context that holds the threads of some steps, and counts the seconds that each is at work in `busy`.

    Steps that are given the same thread take turns: on a processor, where each of them can use all cores, thread pools that
    work at the same time slow each other down several times.
    """

    def __init__(self) -> None:
        self.busy: Counter[str] = Counter()
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def apply(self, name: str, work: Callable[[A], B], items: Iterable[A], thread: str) -> Iterator[B]:
        """work(item) of each item, in order, done in a thread; an error is raised where its item is due, and not before."""
        pool = self._thread(thread)

        def timed(item: A) -> B:
            start = time.perf_counter()
            try:
                return work(item)
            finally:
                self.busy[name] += time.perf_counter() - start  # type: ignore[assignment]

        waiting: deque[Future[B]] = deque()
        failure: Exception | None = None
        source = iter(items)
        while failure is None:
            try:
                waiting.append(pool.submit(timed, next(source)))
            except StopIteration:
                break
            except Exception as error:
                failure = error
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure

    def read(self, name: str, items: Iterator[A], thread: str) -> Iterator[A]:
        """The items, some of them taken from their source ahead, in a thread."""
        end = object()
        for item in self.apply(name, lambda _: next(items, end), itertools.repeat(None), thread):
            if item is end:
                return
            yield item  # type: ignore[misc]

    def _thread(self, name: str) -> ThreadPoolExecutor:
        if name not in self._threads:
            self._threads[name] = ThreadPoolExecutor(1, thread_name_prefix=f"xmc-{name}")
        return self._threads[name]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._threads.values():
            pool.shutdown(wait=True, cancel_futures=True)
