"""Which changes of a journal a run holds, as its manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["JournalMark"]


@dataclass(frozen=True)
class JournalMark:
    """The labels hold all changes of a journal up to one. journal: names the journal. number: of the change."""

    journal: str
    number: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_properties(cls, properties: Mapping[str, Any]) -> JournalMark | None:
        """What the manifest of a run says under "journal"; None where it says nothing of that form."""
        try:
            return cls(str(properties["journal"]["journal"]), int(properties["journal"]["number"]))
        except (KeyError, TypeError, ValueError):
            return None
