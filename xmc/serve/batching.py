"""Requests gathered into batches: those with the same options are answered together, by one thread."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from xmc.serve.failures import Refusal, refusal_of
from xmc.serve.metrics import ServerMetrics
from xmc.serve.settings import Limits

__all__ = ["Asked", "Batcher"]

SHARE_WAITED = 0.5
"""A batch waits for at most this share of the time that the last one took: more would cost more than joining saves."""
SWEPT_EVERY = 0.05
"""Seconds between two looks for requests whose time is over."""
logger = logging.getLogger("xmc.serve")


@dataclass(eq=False, slots=True)
class Asked:
    """One request: what belongs into a batch with it, and what becomes of it.

    key: requests of the same one may be answered together. content: what `Answering` makes of it. size: number of queries.
    done: called in the event loop's thread with the response's body, or with why there is none; once.
    """

    key: Hashable
    content: Any
    size: int
    done: Callable[[bytes | Refusal], None]
    since: float = field(default_factory=time.monotonic)
    open: bool = True

    def finish(self, outcome: bytes | Refusal) -> None:
        """Tell the outcome, if nothing was told before."""
        if self.open:
            self.open = False
            self.done(outcome)


class Batcher:
    """Gathers requests, and lets one thread answer them. Its methods are for the thread of the event loop.

    A request that comes when nothing is under way is answered at once. Those that come meanwhile wait for the thread, and are
    then answered in one batch; where several requests are on their way in, as clients send the next after each answer, the
    batch waits for them, shortly.
    """

    def __init__(
        self, answer: Callable[[Sequence[Asked]], Sequence[bytes | Refusal]], limits: Limits, metrics: ServerMetrics
    ) -> None:
        """answer: called in the thread with requests of one key, returns the outcome of each; must not raise."""
        self._answer, self._limits, self._metrics = answer, limits, metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[Hashable, list[Asked]] = OrderedDict()
        self._count = 0
        self._open: OrderedDict[int, Asked] = OrderedDict()
        self._busy = False
        self._timer: asyncio.Handle | None = None
        self._took, self._expected = 0.0, 1
        self._work: queue.SimpleQueue[list[Asked] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="xmc-answers", daemon=True)
        self._thread.start()
        self._sweeper = self._loop.call_later(SWEPT_EVERY, self._sweep)

    @property
    def open(self) -> int:
        """Number of requests that have no answer yet."""
        return len(self._open)

    def add(self, asked: Asked) -> None:
        """Take a request. Refusal (429) where too many wait."""
        if len(self._open) >= self._limits.waiting:
            raise Refusal(
                429, f"{len(self._open):,} requests are waiting, as many as may wait; come again in a moment."
            )
        self._open[id(asked)] = asked
        self._waiting.setdefault(asked.key, []).append(asked)
        self._count += 1
        if self._busy:
            return
        if self._timer is None:
            self._gather()
        elif self._count >= self._expected:
            self._timer.cancel()
            self._start()

    async def close(self) -> None:
        """End the thread after the batch that it answers; requests that still wait are refused (503)."""
        self._sweeper.cancel()
        for asked in list(self._open.values()):
            self._finish(asked, Refusal(503, "The server is stopping; send the request to another, or again later."))
        self._work.put(None)
        await self._loop.run_in_executor(None, self._thread.join, self._limits.seconds)

    def _gather(self) -> None:
        """Start a batch, at once or after a moment in which others may join it."""
        window = min(self._limits.window, SHARE_WAITED * self._took)
        if self._count >= self._expected or not window:
            self._timer = self._loop.call_soon(self._start)  # after all that was received in this turn of the loop
        else:
            self._timer = self._loop.call_later(window, self._start)

    def _start(self) -> None:
        """Give the thread the requests of the key that waits longest."""
        self._timer = None
        batch: list[Asked] = []
        while self._waiting and not batch:
            key, listed = self._waiting.popitem(last=False)
            size = taken = 0
            for asked in listed:
                if batch and size + asked.size > self._limits.batch:
                    break
                taken += 1
                if asked.open:
                    batch.append(asked)
                    size += asked.size
            self._count -= taken
            if taken < len(listed):
                self._waiting[key] = listed[taken:]
        if not batch:
            return
        self._busy = True
        self._expected = (len(self._open) + self._expected + 1) // 2
        self._work.put(batch)

    def _answered(self, batch: list[Asked]) -> None:
        """Answer a batch, in the thread."""
        begin = time.perf_counter()
        try:
            outcomes = self._answer(batch)
        except Exception as error:
            outcomes = [refusal_of(error)] * len(batch)
        took = time.perf_counter() - begin
        self._loop.call_soon_threadsafe(self._tell, batch, outcomes, took)

    def _tell(self, batch: list[Asked], outcomes: Sequence[bytes | Refusal], took: float) -> None:
        """Tell the outcomes, and start the next batch, which the thread answers meanwhile."""
        self._busy, self._took = False, took
        self._metrics.batch(sum(asked.size for asked in batch), took)
        if self._count >= self._expected:
            self._start()
        elif self._count:
            self._gather()
        for asked, outcome in zip(batch, outcomes, strict=True):
            self._finish(asked, outcome)

    def _finish(self, asked: Asked, outcome: bytes | Refusal) -> None:
        self._open.pop(id(asked), None)
        asked.finish(outcome)

    def _sweep(self) -> None:
        """Tell requests whose time is over, oldest first."""
        self._sweeper = self._loop.call_later(SWEPT_EVERY, self._sweep)
        limit = self._limits.seconds
        now = time.monotonic()
        while self._open:
            asked = next(iter(self._open.values()))
            if now - asked.since < limit:
                break
            message = f"The answer took longer than {limit:g} seconds; ask for less at once, or come again later."
            self._finish(asked, Refusal(504, message))

    def _run(self) -> None:
        while (batch := self._work.get()) is not None:
            self._answered(batch)
