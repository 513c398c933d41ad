"""One HTML page about one or several runs: how good they are, where they fail and why, what they take."""

from __future__ import annotations

from xmc.report.card import card_results
from xmc.report.write import write_report

__all__ = ["card_results", "write_report"]
