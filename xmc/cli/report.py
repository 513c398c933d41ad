"""`xmc report`: one HTML page about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli import complete
from xmc.cli.console import say
from xmc.cli.devices import Device, devices_named


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; the others are compared with the first.")],
    dataset: Annotated[
        str,
        typer.Option(
            help="Name of a shipped data set, or a data set directory.",
            show_default=False,
            autocompletion=complete.data_sets,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path("report.html"),
    split: Annotated[
        str, typer.Option(help="Split to report on; its filter file is applied.", autocompletion=complete.splits)
    ] = "test",
    k: Annotated[int, typer.Option("-k", "--k", min=10, help="Labels searched for each query.")] = 100,
    queries: Annotated[
        int, typer.Option(min=1, help="Queries on the page: half the worst, half a random sample.")
    ] = 500,
    major_mistakes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.parquet",
            help="Write the first predictions of the first run that are plainly wrong, for `xmc evaluate --mistakes`.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Write a page with metrics, curves, costs, and queries with their mistakes; it needs no network."""
    from rich.filesize import decimal

    from xmc.data.dataset import Dataset
    from xmc.report import write_report

    data, where = Dataset.load(dataset), devices_named(device)
    page = write_report(runs, data, output, split, k=k, queries=queries, major_mistakes=major_mistakes, device=where)
    say(f"report in {page} ({decimal(page.stat().st_size)}); open it in a browser")
    if major_mistakes is not None:
        say(f"written: {major_mistakes}")
