"""What a job did, as it is printed and written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Done", "Summary"]


@dataclass(frozen=True)
class Done:
    """A finished part: numbers of rows read, of rows written, of null rows among these, and of rows by reason and remark.

    tokens: number of those that were encoded; 0 where nobody counts them, as of hashed features.
    """

    part: int
    rows: int
    written: int
    null: int
    bad: dict[str, int]
    remarks: dict[str, int]
    tokens: int = 0


@dataclass
class Summary:
    """Counts of a job.

    rows: of input. predicted, null, dropped: what became of them; they add up to `rows`. bad: null and dropped rows by reason.
    remarks: predicted rows by what was noticed. duplicate_uids: rows whose uid an earlier row has. resumed: parts that an
    earlier job had finished. tokens: number of those that were encoded, as of Done. seconds: time of this job. busy: seconds
    that each step was at work, by name.
    """

    rows: int = 0
    predicted: int = 0
    null: int = 0
    dropped: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    duplicate_uids: int = 0
    resumed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    busy: Counter[str] = field(default_factory=Counter)

    def add(self, done: Done) -> None:
        """Count a part."""
        self.rows += done.rows
        self.predicted += done.written - done.null
        self.null += done.null
        self.dropped += done.rows - done.written
        self.tokens += done.tokens
        self.bad.update(done.bad)
        self.remarks.update(done.remarks)

    def to_dict(self) -> dict[str, Any]:
        """The counts that do not depend on how a job went, for JSON."""
        return {
            "rows": self.rows,
            "predicted": self.predicted,
            "null": self.null,
            "dropped": self.dropped,
            "bad": dict(sorted(self.bad.items())),
            "remarks": dict(sorted(self.remarks.items())),
            "duplicate_uids": self.duplicate_uids,
            "tokens": self.tokens,
        }

    def rates(self) -> str:
        """Rows and tokens a second of the whole job, for people; "" where an earlier job had finished some of them."""
        if self.resumed or not self.seconds:
            return ""
        counted = {"rows": self.rows} | ({"tokens": self.tokens} if self.tokens else {})
        return ", ".join(f"{count / self.seconds:,.0f} {name}/s" for name, count in counted.items())

    @property
    def slowest(self) -> str:
        """The step that was busy longest; "" before the first."""
        return max(self.busy, key=lambda name: self.busy[name], default="")
