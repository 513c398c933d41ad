"""What `xmc evaluate` prints: a table of metrics with intervals and differences, or the same as JSON, and notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from xmc.cli.console import console
from xmc.evaluation.evaluated import Evaluated
from xmc.evaluation.per_query import QueryMetrics
from xmc.metrics.resampling import PairedDifference

__all__ = ["metric_table", "notes", "to_dict"]

Intervals = Mapping[str, tuple[float, float]]
Differences = Mapping[str, PairedDifference]


def metric_table(
    of_queries: QueryMetrics,
    evaluated: Evaluated | None,
    intervals: Intervals,
    differences: Differences,
    confidence: float,
) -> None:
    """Print the table. intervals, differences: by metric, empty where they were not asked for."""
    table = Table("metric")
    table.add_column("percent", justify="right")
    if intervals:
        table.add_column(f"{confidence:.0%} interval", justify="right")
    if differences:
        for title in ("difference", f"its {confidence:.0%} interval", "p"):
            table.add_column(title, justify="right")
    for name, value in of_queries.means.items():
        cells = [name, f"{value:.2f}"]
        if intervals:
            cells.append("{:.2f} to {:.2f}".format(*intervals[name]))
        if name in differences:
            paired = differences[name]
            cells += [f"{paired.difference:+.2f}", f"{paired.low:+.2f} to {paired.high:+.2f}", f"{paired.p_value:.2g}"]
        table.add_row(*cells)
    speed = getattr(evaluated, "queries_per_second", None)
    if speed is not None:
        table.add_row("queries/s", f"{speed:,.0f}", style="dim")
    console.print(table)


def to_dict(
    of_queries: QueryMetrics,
    evaluated: Evaluated | None,
    intervals: Intervals,
    differences: Differences,
    confidence: float,
) -> dict[str, Any]:
    """All of it as plain values for JSON."""
    found = {"values": of_queries.means, "queries": len(of_queries)} if evaluated is None else evaluated.to_dict()
    if intervals or differences:
        found["confidence"] = confidence
    if intervals:
        found["intervals"] = {name: list(bounds) for name, bounds in intervals.items()}
    if differences:
        found["against"] = {name: asdict(paired) for name, paired in differences.items()}
    return found


def notes(evaluated: Evaluated | None) -> list[str]:
    """What a reader of the numbers should know of written predictions."""
    missing, unknown = getattr(evaluated, "missing", 0), getattr(evaluated, "unknown", 0)
    said = []
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
