"""What tuning measured, noted in a file, so that a tuning that was stopped goes on."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

from xmc.indexes.tuning.goal import OperatingPoint

__all__ = ["TuningJournal"]

logger = logging.getLogger("xmc.indexes.tuning")


class TuningJournal:
    """What was measured, a line a design, for the same labels and queries."""

    def __init__(self, file: Path | None, fingerprint: str) -> None:
        self._file, self._fingerprint = file, fingerprint
        self._points: dict[str, list[OperatingPoint]] = {}
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    note = json.loads(line)
                    if note["fingerprint"] == fingerprint:
                        self._points[note["design"]] = [OperatingPoint(**point) for point in note["points"]]
                except (ValueError, KeyError, TypeError):
                    logger.info("%s holds a line that was not written whole; it is passed over", file)

    def get(self, design: str) -> list[OperatingPoint] | None:
        """The points of a design, where it was measured."""
        return self._points.get(design)

    def put(self, design: str, points: list[OperatingPoint]) -> None:
        """Note a design."""
        if self._file is None:
            return
        note = {"fingerprint": self._fingerprint, "design": design, "points": [asdict(point) for point in points]}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")
