"""Cases run by forked children, so that one that ends its process ends no other: it is reported, and the next one begins."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.folders import Changes, files_of
from fuzzing.targets import Target
from fuzzing.worker import SOUND, Outcome, changes_of, keep, prepare, work

__all__ = ["Child", "Results", "forked", "run_target"]

SECONDS = 30.0
"""Seconds of processor time that a case may take."""
LONGEST = 240.0
"""Seconds that a case may take on a clock, on a machine that has other work too."""
CHUNK = 500
"""Cases of one child, whose memory is given back at its end."""


@dataclass
class Results:
    """Number of cases of a target by their outcome; the first failure of each kind; the seconds that they took."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[int, Outcome, int]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, seed: int, outcome: Outcome) -> None:
        """Count the outcome of a case."""
        self.counts[outcome.word] += 1
        if outcome.word not in SOUND:
            kind = f"{outcome.word} {outcome.where}"
            first, said, count = self.failures.get(kind, (seed, outcome, 0))
            self.failures[kind] = (first, said, count + 1)

    def extend(self, more: Results) -> None:
        """Count further cases."""
        self.counts.update(more.counts)
        self.seconds += more.seconds
        for kind, (seed, outcome, count) in more.failures.items():
            first, said, before = self.failures.get(kind, (seed, outcome, 0))
            self.failures[kind] = (first, said, before + count)

    @property
    def failed(self) -> int:
        """Number of cases with an outcome that may not be."""
        return sum(count for word, count in self.counts.items() if word not in SOUND)


def forked(task: Callable[[], object]) -> int:
    """The process identifier of a child that does a task and ends. What it writes to stderr is shown."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        task()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class Child:
    """A child that runs some cases."""

    def __init__(self, target: Target, folder: Path, seeds: list[int], saved: list[Changes]) -> None:
        self.target, self.folder, self.seeds, self.saved = target, folder, seeds, saved
        self.reading, writing = os.pipe()

        def task() -> None:
            os.close(self.reading)
            work(target, folder, seeds, writing, saved)

        self.pid = forked(task)
        os.close(writing)
        self.begun: int | None = None
        self._at, self._processor = time.monotonic(), 0.0
        self._rest = b""

    def answers(self) -> Iterator[tuple[int, Outcome]]:
        """The outcomes that came since; at the end of the child, that of the case which ended it."""
        content = os.read(self.reading, 1 << 16)
        if not content:
            yield from self._ended()
            return
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "begun" in said:
                self.begun, self._at, self._processor = said["begun"], time.monotonic(), self._used()
            else:
                self.begun = None
                self.seeds = [seed for seed in self.seeds if seed != said["seed"]]
                yield said["seed"], Outcome(said["word"], said["said"], said["where"])

    def stop_if_late(self) -> None:
        """End the child where its case takes too long; its stack goes to stderr."""
        if self.begun is None:
            self._at = time.monotonic()
            return
        if self._used() - self._processor > SECONDS or time.monotonic() - self._at > LONGEST:
            os.kill(self.pid, signal.SIGABRT)
            time.sleep(0.3)
            os.kill(self.pid, signal.SIGKILL)

    def _used(self) -> float:
        """Seconds of processor time that the child took so far."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _ended(self) -> Iterator[tuple[int, Outcome]]:
        used, late = self._used() - self._processor, time.monotonic() - self._at
        _, status = os.waitpid(self.pid, 0)
        os.close(self.reading)
        self.pid = 0
        stderr = "".join(
            file.read_text(errors="replace")[:3000] for file in self.folder.glob("stderr-*") if file.stat().st_size
        )
        for file in self.folder.glob("stderr-*"):
            file.unlink()
        if not self.seeds:
            return
        seed = self.seeds[0]
        code = os.waitstatus_to_exitcode(status)
        ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        word = "time" if code < 0 and (used > SECONDS or late > LONGEST) else "crash"
        outcome = Outcome(word, f"{ending}\n{stderr}", f"{ending} {_innermost(stderr)}")
        changes, _ = changes_of(self.target, files_of(self.folder / "sample"), seed, self.saved)
        keep(self.folder / "failed" / str(seed), changes, outcome)
        self.seeds = self.seeds[1:]
        yield seed, outcome


def _innermost(stderr: str) -> str:
    """The innermost place of xmc in a stack that faulthandler wrote."""
    for line in stderr.splitlines():
        if line.startswith('  File "') and not any(part in line for part in ("/fuzzing/", "/lib/python", "<frozen")):
            return line.strip()[:200]
    return ""


def run_target(
    target: Target,
    folder: Path,
    seeds: list[int],
    saved: list[Changes],
    processes: int = 1,
    until: float = float("inf"),
) -> Results:
    """Run cases of a target by some children at a time; the outcomes.

    folder: of the target's own; what it needs is written there where it is not yet. until: time.monotonic() at which no
    further child begins.
    """
    results, start = Results(), time.monotonic()
    if not (folder / "sample").is_dir():
        _, status = os.waitpid(forked(lambda: prepare(target, folder)), 0)
        if status:
            results.add(0, Outcome("traceback", "the sound inputs could not be written, see above", "before"))
            return results
    size = max(1, min(CHUNK, -(-len(seeds) // processes)))
    waiting = [seeds[first : first + size] for first in range(0, len(seeds), size)]
    children: list[Child] = []
    while waiting or children:
        while waiting and len(children) < processes and time.monotonic() < until:
            children.append(Child(target, folder, waiting.pop(0), saved))
        if not children:
            break
        ready, _, _ = select.select([child.reading for child in children], [], [], 1.0)
        for child in list(children):
            if child.reading in ready:
                for seed, outcome in child.answers():
                    results.add(seed, outcome)
                if child.pid == 0:
                    children.remove(child)
                    if child.seeds:
                        waiting.insert(0, child.seeds)
            else:
                child.stop_if_late()
    results.seconds = time.monotonic() - start
    return results
