"""Work of a training part that a thread does on a copy while steps go on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

__all__ = ["Background"]

P = ParamSpec("P")
R = TypeVar("R")


class Background(Generic[R]):
    """One piece of work at a time, and its result: of a thread that is made when it is first needed, or of none."""

    def __init__(self, name: str) -> None:
        """name: of the thread."""
        self.name = name
        self._thread: ThreadPoolExecutor | None = None
        self._future: Future[R] | None = None

    def start(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> None:
        """Begin in a thread; what was begun before must have been asked for."""
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix=self.name)
        self._future = self._thread.submit(work, *arguments, **named)

    def result(self) -> R | None:
        """What was begun, once it is done; None where nothing was begun since the last call."""
        if self._future is None:
            return None
        future, self._future = self._future, None
        return future.result()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
