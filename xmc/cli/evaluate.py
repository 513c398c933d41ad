"""`xmc evaluate`: a run against a split of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    dataset: Annotated[str, typer.Argument(help="Name of a shipped data set, or a data set directory.")],
    split: Annotated[str, typer.Option(help="Split to evaluate on; its filter file is applied.")] = "test",
    exact: Annotated[
        bool, typer.Option("--exact", help="Search all labels exactly, whatever the run's index.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print P, nDCG, PSP, PSnDCG and R at k, in percent."""
    import json

    from xmc.data.dataset import Dataset
    from xmc.evaluation import evaluate as measure
    from xmc.retriever import Retriever

    evaluation = measure(Retriever.load(run), Dataset.load(dataset), split, exact)
    if json_output:
        typer.echo(json.dumps(evaluation.to_dict(), indent=2))
        return
    console = Console()
    title = f"{run} on {dataset}, split {split}: {evaluation.queries:,} queries"
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    table = Table("metric")
    table.add_column("percent", justify="right")
    for name, value in evaluation.values.items():
        table.add_row(name, f"{value:.2f}")
    table.add_row("queries/s", f"{evaluation.queries_per_second:,.0f}", style="dim")
    console.print(table)
