"""The one report of long work: a bar on a terminal, a widget in a notebook, elsewhere a line of the log every 30 seconds."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from xmc.shown import visible
from xmc.terminal import VisibleConsole

__all__ = ["INTERVAL", "ProgressLine", "console", "progress", "tracked"]

T = TypeVar("T")

INTERVAL = 30.0
"""Seconds between two lines of the log about the same work."""
DELAY = 0.5
"""Seconds after which work is worth a bar on a terminal."""
REDRAWN = 0.25
"""Seconds between two drawings of a widget."""

console = VisibleConsole(stderr=True)
"""Standard error: bars, and whatever else is to stand above them while they move."""

logger = logging.getLogger("xmc.progress")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)  # heard although other messages of this level are not; silence this logger by name


class ProgressLine:
    """One piece of work in progress. Any thread may tell it how far the work is."""

    def __init__(self, bars: Progress, description: str, total: float | None, done: float, unit: str) -> None:
        """See `progress`, which makes one. bars: what holds it, and shows it where bars are shown."""
        self._bars, self._thread, self._drawn = bars, threading.get_ident(), time.monotonic()
        self._row = bars.add_task(description, total=total, unit=unit, note="")
        bars.update(self._row, completed=done)

    def advance(self, count: float = 1, note: str | None = None) -> None:
        """Count what is done since the last call. note: see `say`; None leaves it as it is."""
        if note is None:
            self._bars.update(self._row, advance=count, refresh=self._is_due())
        else:
            self._bars.update(self._row, advance=count, note=note, refresh=self._is_due())

    def say(self, note: str) -> None:
        """Show some words beside the count, such as the stage that the work is in."""
        self._bars.update(self._row, note=note, refresh=self._is_due())

    def describe(self, description: str) -> None:
        """Say in other words what is done."""
        self._bars.update(self._row, description=description)

    @property
    def speed(self) -> float | None:
        """What is done in a second; None where it is not known yet."""
        return self._task.speed

    def sentence(self) -> str:
        """The line of the log: what is done, how far it is, and for how many seconds it has been going on."""
        task = self._task
        facts = [_amount(task), str(task.fields["note"]), f"{task.elapsed or 0.0:.0f} s so far"]
        if task.total is not None and task.time_remaining:
            facts.append(f"about {task.time_remaining:.0f} s left")
        return f"{task.description}: {', '.join(filter(None, facts))}"

    def close(self, keep: bool) -> None:
        """The work ends. keep: its bar stays on the terminal."""
        logger.debug("%s ends", self._task.description)
        if keep:
            self._bars.stop_task(self._row)
        else:
            self._bars.remove_task(self._row)

    def _is_due(self) -> bool:
        """Whether a widget is drawn anew: by its own thread alone, as a widget catches what others print meanwhile."""
        now = time.monotonic()
        if not console.is_jupyter or now - self._drawn < REDRAWN or threading.get_ident() != self._thread:
            return False
        self._drawn = now
        return True

    @property
    def _task(self) -> Task:
        return next(task for task in self._bars.tasks if task.id == self._row)


class _Display:
    """All work in progress of this process: one set of bars however many pieces of work are open, or one thread that logs."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lines: dict[ProgressLine, float] = {}
        """The open lines, and the seconds between two lines of the log about each."""
        self._bars: Progress | None = None
        self._kept = self._started = False
        self._changed = threading.Event()
        """Set where a line comes or goes; another one for each time that bars come up."""

    def open(self, description: str, total: float | None, done: float, unit: str, interval: float) -> ProgressLine:
        """Begin to show a piece of work."""
        with self._lock:
            if self._bars is None:
                self._bars, self._kept, self._started = _bars(), False, False
                if console.is_jupyter and not self._bars.disable:
                    self._start(self._bars)  # here: widgets belong to the cell of the thread that makes them
                else:
                    self._changed = threading.Event()
                    watch = self._log if self._bars.disable else self._start_late
                    threading.Thread(target=watch, args=(self._changed,), name="xmc-progress", daemon=True).start()
            logger.debug("%s begins", description)
            line = ProgressLine(self._bars, description, total, done, unit)
            self._lines[line] = interval
            self._changed.set()
            return line

    def close(self, line: ProgressLine, keep: bool) -> None:
        """The work of a line ends; the last one takes the bars along that do not stay."""
        with self._lock:
            bars = self._bars
            if self._lines.pop(line, None) is None or bars is None:
                return  # opened before a fork, in the parent
            line.close(keep)
            self._kept = self._kept or keep
            if not self._lines:
                if self._started:
                    if console.is_jupyter:
                        bars.refresh()  # on a terminal, `stop` does
                    bars.live.transient = not self._kept
                    bars.stop()
                self._bars = None
            self._changed.set()

    def forget(self) -> None:
        """In a forked child: what the parent shows is the parent's."""
        self._lock, self._lines, self._bars = threading.RLock(), {}, None

    def _start(self, bars: Progress) -> None:
        self._started = True
        bars.start()

    def _start_late(self, changed: threading.Event) -> None:
        """Show the bars where work is still open after a moment."""
        end = time.monotonic() + DELAY
        while (left := end - time.monotonic()) > 0:
            changed.wait(left)
            with self._lock:
                if self._bars is None or changed is not self._changed:
                    return
                changed.clear()
        with self._lock:
            if self._bars is not None and changed is self._changed:
                self._start(self._bars)

    def _log(self, changed: threading.Event) -> None:
        """Write lines of the log, until no work is open."""
        due: dict[ProgressLine, float] = {}
        while True:
            with self._lock:
                if self._bars is None or changed is not self._changed:
                    return
                changed.clear()
                now = time.monotonic()
                due = {line: due.get(line, now + interval) for line, interval in self._lines.items()}
                late = [line for line, moment in due.items() if moment <= now]
                sentences = [line.sentence() for line in late]
                due |= {line: now + self._lines[line] for line in late}
                wait = min(due.values(), default=now + INTERVAL) - now
            for sentence in sentences:
                _write(sentence)
            changed.wait(wait)


_display = _Display()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_display.forget)


@contextmanager
def progress(
    description: str,
    total: float | None = None,
    *,
    done: float = 0,
    unit: str = "",
    keep: bool = False,
    interval: float | None = None,
) -> Iterator[ProgressLine]:
    """A context in which long work is never silent; it gives the line that is told of every step.

    On a terminal the line is a bar on standard error, in a notebook (with ipywidgets) a widget. Elsewhere the logger
    "xmc.progress" gets a line at the level INFO every `interval` seconds, on standard error where logging is not set up.
    In processes of torchrun other than the first nothing is shown. Work inside of other work has a line of its own.

    description: what is done, such as "encoding labels". total: number of steps; None where it is not known. done: those
    done before. unit: what is counted, such as "rows"; "bytes" are shown as sizes. keep: whether the bar stays at the end.
    interval: seconds; by default INTERVAL.
    """
    line = _display.open(description, total, done, unit, INTERVAL if interval is None else interval)
    try:
        yield line
    finally:
        _display.close(line, keep)


def tracked(
    items: Iterable[T],
    description: str,
    total: float | None = None,
    *,
    unit: str = "",
    size: Callable[[T], float] = lambda item: 1,
    interval: float | None = None,
) -> Iterator[T]:
    """The items one after another, with a line of `progress` that counts them.

    total: by default the number of items, where they have one. size: what an item counts for, in the same unit.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total, unit=unit, interval=interval) as line:
        for item in items:
            yield item
            line.advance(size(item))


class _AmountColumn(TextColumn):
    """How much is done."""

    def render(self, task: Task) -> Text:
        return Text(_amount(task), style="progress.download")


def _bars() -> Progress:
    """The bars of this process, not shown where they are for nobody."""
    file = console.file
    terminal = hasattr(file, "isatty") and file.isatty() and not console.is_dumb_terminal
    notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _AmountColumn(""),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (_is_root() and (terminal or notebook)),
        auto_refresh=not console.is_jupyter,
        redirect_stderr=terminal,
        redirect_stdout=terminal and sys.stdout is not None and sys.stdout.isatty(),  # what is piped stays in its pipe
    )


def _is_root() -> bool:
    """Whether this is the process of a torchrun that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def _amount(task: Task) -> str:
    """How much is done, in words."""
    unit = str(task.fields["unit"])
    if unit == "bytes":
        done = decimal(int(task.completed))
        return done if task.total is None else f"{done} of {decimal(int(task.total))}"
    if task.total is None:
        return f"{task.completed:,.0f} {unit}".rstrip() if task.completed or unit else ""
    return f"{task.completed:,.0f} of {task.total:,.0f} {unit}".rstrip()


def _write(line: str) -> None:
    """Write a line of the log, on standard error where no handler would."""
    if not (_is_root() and logger.isEnabledFor(logging.INFO)):
        return
    line = visible(line)
    if logger.hasHandlers():
        logger.info("%s", line)
    else:
        print(line, file=sys.stderr)
