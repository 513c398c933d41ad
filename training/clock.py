"""Where the time of training goes: data, encoding, loss, optimizer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

__all__ = ["Clock"]


class Clock:
    """Adds up seconds by activity. On CUDA, what was only launched counts where it is waited for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, activity: str) -> Iterator[None]:
        """Time spent in the block goes to `activity`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + time.perf_counter() - start

    def shares(self) -> dict[str, float]:
        """The share of each activity since the last call, which starts anew."""
        total = sum(self.seconds.values())
        shares = {name: round(value / total, 4) for name, value in self.seconds.items()} if total else {}
        self.seconds.clear()
        return shares
