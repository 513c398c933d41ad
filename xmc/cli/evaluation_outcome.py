"""What `xmc evaluate` finds, prints and writes: metrics with intervals and differences, judgements, mistakes, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from xmc.cli.console import console, say
from xmc.evaluation.evaluated import Evaluated
from xmc.evaluation.judged import JudgedMetrics
from xmc.evaluation.major_mistakes import Repeated
from xmc.evaluation.per_query import QueryMetrics
from xmc.metrics.resampling import PairedDifference
from xmc.terminal import cell

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """All of it.

    evaluated: None where only metrics of queries are known, from a file. intervals, differences: by metric, empty where they
    were not asked for. repeated: saved mistakes that are made again. left_out: metrics that were asked for and need training
    queries, which the data set does not have. written: files and folders.
    """

    of_queries: QueryMetrics
    evaluated: Evaluated | None
    confidence: float
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    differences: Mapping[str, PairedDifference] = field(default_factory=dict)
    repeated: Repeated | None = None
    left_out: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        if self.evaluated is None:
            found: dict[str, Any] = {"values": self.of_queries.means, "queries": len(self.of_queries)}
        else:
            found = self.evaluated.to_dict()
        if self.intervals or self.differences:
            found["confidence"] = self.confidence
        if self.intervals:
            found["intervals"] = {name: list(bounds) for name, bounds in self.intervals.items()}
        if self.differences:
            found["against"] = {name: asdict(paired) for name, paired in self.differences.items()}
        if self.repeated is not None:
            found["major_mistakes"] = self.repeated.to_dict()
        return found

    def show(self) -> None:
        """Print the table, and sentences."""
        console.print(self._table())
        judged = None if self.evaluated is None else self.evaluated.judged
        if judged is not None:
            _show_judged(judged)
        if self.repeated is not None:
            say(self.repeated.sentence())
        if self.left_out:
            say(
                f"{', '.join(self.left_out)} need training queries, which the data set does not have; they are left out."
            )
        for note in _notes(self.evaluated):
            say(note)
        for path in self.written:
            say(f"written: {path}")

    def _table(self) -> Table:
        table = Table("metric")
        table.add_column("percent", justify="right")
        if self.intervals:
            table.add_column(f"{self.confidence:.0%} interval", justify="right")
        if self.differences:
            for title in ("difference", f"its {self.confidence:.0%} interval", "p"):
                table.add_column(title, justify="right")
        for name, value in self.of_queries.means.items():
            cells: list[Text | str] = [cell(name), f"{value:.2f}"]
            if self.intervals:
                cells.append("{:.2f} to {:.2f}".format(*self.intervals[name]))
            if name in self.differences:
                paired = self.differences[name]
                cells += [
                    f"{paired.difference:+.2f}",
                    f"{paired.low:+.2f} to {paired.high:+.2f}",
                    f"{paired.p_value:.2g}",
                ]
            table.add_row(*cells)
        speed = getattr(self.evaluated, "queries_per_second", None)
        if speed is not None:
            table.add_row("queries/s", f"{speed:,.0f}", style="dim")
        return table


def _show_judged(judged: JudgedMetrics) -> None:
    """Print what judgements say."""
    pairs = ", ".join(f"{count:,} {name}" for name, count in judged.pairs.items())
    say(f"judged pairs: {pairs}, of {judged.queries:,} queries")
    table = Table("by judgement")
    table.add_column("percent", justify="right")
    for name, value in judged.values.items():
        table.add_row(cell(name), f"{value:.2f}")
    console.print(table)
    if judged.without:
        say(f"{judged.without:,} judged queries have no right label; top-1 and RPrec leave them out.")
    if "RPrec" not in judged.values and judged.queries > judged.without:
        say("The lists are too short for R-precision: some query has more right labels.")


def _notes(evaluated: Evaluated | None) -> list[str]:
    """What a reader of the numbers should know of the search, or of written predictions."""
    stages = getattr(evaluated, "stages", ())
    missing, unknown = getattr(evaluated, "missing", 0), getattr(evaluated, "unknown", 0)
    said = [f"The search has the stages {', '.join(stages)}."] if stages else []
    if missing:
        said.append(f"{missing:,} queries have no list; they count as not answered.")
    if unknown:
        said.append(f"{unknown:,} lists are of queries that the split does not have; they are left out.")
    filtered, longest = getattr(evaluated, "filtered", 0), getattr(evaluated, "longest", 0)
    if evaluated is not None and filtered:
        measure = max(reversed(evaluated.metrics.measures), key=lambda measure: measure.k)
        if longest < measure.k + filtered:
            said.append(
                f"The filter takes up to {filtered} labels from a list of {longest}: for {measure.title} to be exact, predict "
                f"with --k {measure.k + filtered}."
            )
    return said
