"""Steps that work on a stream one after another, each thread of them ahead of the next by a bounded number of items."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Pipeline"]

A = TypeVar("A")
AHEAD = 2
"""Number of items that a thread may have waiting for the next one."""


class Pipeline:
    """A context that holds the threads of some steps, and counts the seconds that each is at work in `busy`.

    Steps of the same thread take turns: on a processor, where each of them can use all cores, thread pools that work at the
    same time slow each other down several times.
    """

    def __init__(self) -> None:
        self.busy: Counter[str] = Counter()
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def apply(
        self, steps: Sequence[tuple[str, Callable[[Any], Any]]], items: Iterable[Any], thread: str
    ) -> Iterator[Any]:
        """The result of all steps, one after another, for each item, in order, made in a thread.

        steps: name and work of each; nothing waits between them, so that their number costs no memory.
        An error is raised where its item is due, and not before; no item behind it is worked on.
        """
        pool, failed = self._thread(thread), threading.Event()

        def worked(item: Any) -> Any:
            if failed.is_set():
                raise CancelledError
            for name, work in steps:
                start = time.perf_counter()
                try:
                    item = work(item)
                except BaseException:
                    failed.set()
                    raise
                finally:
                    self.busy[name] += time.perf_counter() - start  # type: ignore[assignment]
            return item

        waiting: deque[Future[Any]] = deque()
        failure: Exception | None = None
        source = iter(items)
        while failure is None:
            try:
                waiting.append(pool.submit(worked, next(source)))
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
        for item in self.apply([(name, lambda _: next(items, end))], itertools.repeat(None), thread):
            if item is end:
                return
            yield item

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
