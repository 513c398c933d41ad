"""Cells of labels that hold a separator which does not cut them, so that most labels of a file are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import Literal

from xmc.data.rows import Defect

__all__ = ["UncutCells", "hint"]

MARKS = (";", "|", "\t", "\n", ",")
"""What is between labels in files that people have. A comma is in names too, so it counts in a cell of one label only."""


class UncutCells:
    """Counts the cells of a file whose labels hold one of `MARKS`."""

    def __init__(self) -> None:
        self.cells = 0
        self.holding: Counter[str] = Counter()
        self.first: dict[str, tuple[int, str]] = {}

    def add(self, labels: list[str], line: int) -> None:
        """The labels that a cell was read as."""
        if not labels:
            return
        self.cells += 1
        text = labels[0] if len(labels) == 1 else "".join(label for label in labels if "," not in label)
        for mark in MARKS:
            if mark in text:
                self.holding[mark] += 1
                self.first.setdefault(mark, (line, next(label for label in labels if mark in label)))

    def remark(self, file: Path, unit: Literal["line", "row"]) -> Defect | None:
        """A warning about the file where most of the cells hold the same mark."""
        if not self.holding:
            return None
        mark, count = self.holding.most_common(1)[0]
        if 2 * count <= self.cells:
            return None
        line, label = self.first[mark]
        shown = label if len(label) <= 60 else f"{label[:60]}..."
        message = (
            f"{shown!r} is taken for one label, and so it is in {count:,} of {self.cells:,} rows with labels, which hold "
            f"{mark!r}; if it is between labels, name it with --separator {_quoted(mark)}."
        )
        return Defect(
            "warning",
            file,
            line,
            f"labels that hold {mark!r}",
            message,
            unit=unit,
            of_file=True,
            again=("--separator", mark),
        )


def hint(label: str, known: Container[str]) -> str:
    """A further sentence for a label that is not known where its parts are."""
    for mark in MARKS:
        parts = [part.strip() for part in label.split(mark)]
        if len(parts) > 1 and all(part in known for part in parts if part):
            return f" If it is several labels, name what is between them with --separator {_quoted(mark)}."
    return ""


def _quoted(mark: str) -> str:
    """As a shell takes it."""
    return {"\t": "$'\\t'", "\n": "$'\\n'"}.get(mark, f"'{mark}'")
