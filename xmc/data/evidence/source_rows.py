"""Evidence as a source has it: rows of a file with the source's numbers of queries and labels, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from xmc.arrays import Rows
from xmc.data.evidence import EVIDENCE, Evidence
from xmc.data.evidence.rows import BY_ROW, RowNames, RowProblems
from xmc.data.rows import Defect

__all__ = ["EvidenceRows", "FoundEvidence", "defects_of", "numbered"]


@dataclass(frozen=True)
class FoundEvidence:
    """Sound evidence, the line of each of its rows in the file, int64, and the defects of the rows that are not sound."""

    evidence: Evidence
    lines: Rows
    defects: list[Defect]


@dataclass(frozen=True)
class EvidenceRows:
    """Rows of evidence of one kind.

    kind: in xmc.data.evidence.EVIDENCE. file, lines, unit: where each row stands, int64 [m], and what is counted, from 1.
    table: with the kind's schema, queries and labels by their rows in the source. defects: of rows that are not there. names:
    what messages call queries and labels.
    """

    kind: str
    file: Path
    unit: Literal["line", "row"]
    lines: Rows
    table: pa.Table
    defects: list[Defect] = field(default_factory=list)
    names: RowNames = BY_ROW

    def checked(self, queries: int, labels: int) -> FoundEvidence:
        """The evidence, without rows that say nothing sound. queries, labels: number of rows of the source."""
        kind = EVIDENCE[self.kind]
        problems = kind.problems(self.table, queries, labels, self.names)
        defects = [*self.defects, *defects_of(problems, self.file, self.lines, self.unit)]
        sound = self.table.filter(pa.array(~problems.bad))
        return FoundEvidence(kind.from_sound(sound), self.lines[~problems.bad][kind.order(sound)], defects)


def defects_of(problems: RowProblems, file: Path, lines: Rows, unit: Literal["line", "row"]) -> Iterator[Defect]:
    """The problems as defects, by their lines. lines: int64 [n]."""
    for row, (reason, message) in sorted(problems.found.items()):
        yield Defect("error", file, int(lines[row]), reason, message, True, unit)


def numbered(count: int) -> Rows:
    """The numbers of rows, from 1, int64 [count]."""
    return np.arange(1, count + 1)
