"""What the commands that fit a stage of search for a run have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from xmc.cli import complete
from xmc.terminal import cell

__all__ = ["AsJson", "Data", "RunDirectory", "Share", "Split", "before_and_after"]

RunDirectory = Annotated[Path, typer.Argument(help="Run directory.")]
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Name of a data set, or its directory.", autocompletion=complete.data_sets)
]
Split = Annotated[
    str | None,
    typer.Option(
        help="Queries to choose and fit on; by default what training kept aside.",
        show_default=False,
        autocompletion=complete.splits,
    ),
]
Share = Annotated[
    float | None, typer.Option(help="Share of these queries; the others stay for calibration.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def before_and_after(title: str, names: tuple[str, str], rows: Iterable[tuple[str, float, float]]) -> Table:
    """A table of metrics, each without a stage and with it. names: of these two columns."""
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("metric")
    for name in names:
        table.add_column(name, justify="right")
    for metric, before, after in rows:
        table.add_row(cell(metric), f"{before:.2f}", f"{after:.2f}")
    return table
