"""What an examination finds of one library, in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "is_well"]


@dataclass(frozen=True)
class Finding:
    """One library in one place.

    state: "works"; "fails", which is an error of this installation; "absent", which is not installed and may be wanted;
        "idle", which is installed and has nothing to do here.
    version: "" where it is not installed. says: a clause. command: what mends it; "" where nothing is to be done.
    """

    name: str
    state: Literal["works", "fails", "absent", "idle"]
    version: str = ""
    says: str = ""
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def is_well(findings: list[Finding]) -> bool:
    """Whether nothing that is installed fails."""
    return all(finding.state != "fails" for finding in findings)
