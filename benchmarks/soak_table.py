"""The lines of the table soak, one each minute, and whether anything grows or falls over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filters import quantile
from kernel_problems import resident
from soak_search import Seen

__all__ = ["Minute", "Verdict", "heading", "resources"]

SETTLED = 8
"""With fewer lines nothing is said of what grows: memory is not yet what it stays at."""
GROWTH, SPARE_MIB = 1.15, 100.0
"""Memory of its own may be this factor, and so many MiB, above what it was in the second quarter."""
DESCRIPTORS = 8
"""File descriptors may be this number above those of the second quarter."""
FALL, ERRORS = 0.03, 4.0
"""Recall may be this share below that of the first half, and in short soaks four standard errors of the difference."""


def resources() -> dict[str, Any]:
    """Memory in MiB, file descriptors and threads of this process."""
    return {
        "resident": resident("VmRSS") / 2**20,
        "anonymous": resident("RssAnon") / 2**20,
        "peak": resident("VmHWM") / 2**20,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


@dataclass(frozen=True)
class Minute:
    """What a minute was like; memory in MiB, changes, saves and loads in seconds. violations: from the start on."""

    minutes: float
    labels: int
    remembered: int
    changes: int
    longest_change: float
    saves: tuple[float, ...]
    loads: tuple[float, ...]
    seen: Seen
    violations: int
    resident: float
    anonymous: float
    peak: float
    descriptors: int
    threads: int

    @property
    def recall(self) -> float:
        """Mean over the queries that were compared with all labels; NaN where there are none."""
        return float(np.mean(self.seen.recalls)) if self.seen.recalls else float("nan")

    def line(self) -> str:
        """Under `heading`."""
        single = self.seen.single or [float("nan")]
        saved = f"{max(self.saves):.0f}" if self.saves else "-"
        loaded = f"{max(self.loads):.0f}" if self.loads else "-"
        cells = [f"{self.minutes:.1f}", f"{self.labels:,}", f"{self.remembered:,}", f"{self.changes:,}"]
        cells += [f"{self.longest_change:.2f}", saved, loaded, f"{self.seen.searches:,}", f"{100 * self.recall:.2f}"]
        cells += [f"{quantile(single, 0.5):.1f}", f"{quantile(single, 0.99):.1f}", f"{self.resident:,.0f}"]
        cells += [f"{self.anonymous:,.0f}", str(self.descriptors), str(self.threads), str(self.violations)]
        return "  ".join(cell.rjust(len(title)) for cell, title in zip(cells, TITLES, strict=True))


TITLES = (
    "minute", "   labels", "remembered", "changes", "longest s", "save s", "load s", "searches", "recall@10", "p50 ms",
    "p99 ms", "RSS MiB", "own MiB", "files", "threads", "violations",
)  # fmt: skip


def heading() -> str:
    """The names of the columns."""
    return "  ".join(TITLES)


@dataclass(frozen=True)
class Verdict:
    """What was not as it must be, in sentences; nothing where all was."""

    sentences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether all was as it must be."""
        return not self.sentences

    @classmethod
    def of(cls, minutes: Sequence[Minute], violations: Sequence[str]) -> Verdict:
        """Violations, memory and descriptors that grow, recall that falls, and a soak that saw nothing."""
        said = [f"{len(violations):,} violations, such as: {violations[0]:.500}"] if violations else []
        if not sum(one.seen.searches for one in minutes) or not any(one.seen.recalls for one in minutes):
            said.append("No search was compared with all labels: the time was too short.")
        if len(minutes) >= SETTLED:
            said += _trends(minutes)
        return cls(tuple(said))


def _trends(minutes: Sequence[Minute]) -> list[str]:
    quarter = len(minutes) // 4
    second, last = minutes[quarter : 2 * quarter], minutes[-quarter:]
    said = []
    before, after = (max(one.anonymous for one in some) for some in (second, last))
    if after > GROWTH * before + SPARE_MIB:
        said.append(f"Memory grows: {before:,.0f} MiB in the second quarter of the time, {after:,.0f} MiB in the last.")
    before, after = (max(one.descriptors for one in some) for some in (second, last))
    if after > before + DESCRIPTORS:
        said.append(f"File descriptors grow: {before:.0f} in the second quarter of the time, {after:.0f} in the last.")
    half = len(minutes) // 2
    halves = [
        np.array([recall for one in some for recall in one.seen.recalls] or [np.nan])
        for some in (minutes[:half], minutes[half:])
    ]
    first, second_half = (float(recalls.mean()) for recalls in halves)
    error = sum(float(recalls.var()) / len(recalls) for recalls in halves) ** 0.5
    if second_half < first - max(FALL, ERRORS * error):
        said.append(f"Recall falls: {first:.2%} in the first half of the time, {second_half:.2%} in the second.")
    return said
