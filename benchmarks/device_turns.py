"""Timing of many methods within a limited time: CUDA events on a GPU, in turns, fewer rounds for slow methods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from kernel_problems import event_seconds, peak_memory, seconds_of

__all__ = ["LEAST_ROUNDS", "MOST_ROUNDS", "Clock", "Measured", "measure", "reason"]

LEAST_ROUNDS, MOST_ROUNDS = 3, 9
"""Number of timed calls of a method; the most where time allows."""

Call = Callable[[], object]


class Clock:
    """A time limit that is shared out among what is still to be done."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the end, negative after it."""
        return self.end - time.monotonic()

    def share(self, of: int) -> Clock:
        """An equal share of the time left, for one of so many things."""
        return Clock(self.left() / of)


@dataclass
class Measured:
    """Seconds of each timed call, and peak memory in bytes beyond what was held before, by method."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)


def measure(calls: Mapping[str, Call], clock: Clock, where: object, device: str = "cuda") -> Measured:
    """Time each call, at least LEAST_ROUNDS times after one call to warm up, and more in turns while time is left.

    On CUDA by events; on a CPU, where this is for trying a script out, by the clock. Inputs are larger than the device's
    cache, so that nothing is flushed between calls. A method that fails, does not fit the memory, or would take longer
    than half of the time left is left out, with a line that says why; the first methods are the surest to be measured.
    `where` is named in these lines.
    """
    found = Measured()
    for name, call in calls.items():
        try:
            if device == "cuda":
                torch.cuda.empty_cache()  # some peers allocate beside torch
            found.memory[name], found.seconds[name] = _first_rounds(call, clock, device)
        except Exception as error:
            print(f"{name} left out at {where}: {reason(error)}", flush=True)
            with contextlib.suppress(RuntimeError):  # after some errors the device refuses everything
                torch.cuda.empty_cache()
    _further_rounds(calls, clock, found.seconds, device)
    return found


def _first_rounds(call: Call, clock: Clock, device: str) -> tuple[float, list[float]]:
    """Peak memory in bytes and the seconds of LEAST_ROUNDS calls. TimeoutError where half of the time left is too little."""
    if clock.left() <= 0:
        raise TimeoutError("no time was left for it.")
    call()
    samples: list[float] = []
    seconds = _timer(device)
    memory = peak_memory(lambda: samples.append(seconds(call)), device)
    needed = (LEAST_ROUNDS - 1) * samples[0]
    if needed > max(clock.left(), 0) / 2:
        raise TimeoutError(f"a call takes {samples[0]:.1f} s, too long for the time left.")
    return memory, samples + [seconds(call) for _ in range(LEAST_ROUNDS - 1)]


def _further_rounds(calls: Mapping[str, Call], clock: Clock, seconds: dict[str, list[float]], device: str) -> None:
    """Add rounds, all methods in turns, while there is time for a method's next call."""
    for number in range(LEAST_ROUNDS, MOST_ROUNDS):
        for name, samples in seconds.items():
            if len(samples) < number or samples[-1] > clock.left():
                continue
            try:
                samples.append(_timer(device)(calls[name]))
            except Exception as error:
                print(f"{name} ends after {len(samples)} rounds: {reason(error)}", flush=True)


def _timer(device: str) -> Callable[[Call], float]:
    return event_seconds if device == "cuda" else seconds_of


def reason(error: Exception) -> str:
    """The first line of an error, with its type where it is not one of the project's own sentences."""
    if isinstance(error, torch.OutOfMemoryError):
        return "it does not fit the memory."
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, TimeoutError) else f"{type(error).__name__}: {text}"
