"""`xmc memory`: training queries that searches of a run recall."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from xmc.cli import complete
from xmc.cli.console import console, say


def memory(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Name of a data set, or its directory.", autocompletion=complete.data_sets),
    ],
    encoder: Annotated[
        str,
        typer.Option(
            help="What makes the vectors of queries: own, or a directory of sentence-transformers or of a run; "
            '"auto" for own, only where it gains.'
        ),
    ] = "auto",
    split: Annotated[
        str | None,
        typer.Option(
            help="Queries on which it is chosen how remembered ones vote; by default what training kept aside.",
            show_default=False,
            autocompletion=complete.splits,
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Share of these queries; the others stay for calibration.", show_default=False)
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Remember the training queries: the labels of those most like a query join its answer. Kept with the run."""
    import json

    from xmc.evaluation.memory import fit_memory
    from xmc.search.retriever import Retriever

    retriever = Retriever.load(run)
    fitted = fit_memory(retriever, dataset, encoder, split=split, share=share)
    if fitted.memory is not None:
        retriever.save(run, overwrite=True)
    if json_output:
        typer.echo(json.dumps(fitted.to_dict(), indent=2))
        return
    table = Table(title=f"{fitted.queries:,} queries", box=SIMPLE_HEAD)
    for name in ("metric", "without", "with votes"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, value in fitted.without.items():
        table.add_row(name, f"{value:.2f}", f"{fitted.with_votes[name]:.2f}")
    console.print(table)
    if fitted.memory is None:
        say("The run stays as it is: no way to vote gains for certain with P@1 and PSP@5 at least as high.")
        return
    rule, size = fitted.rule, sum(fitted.memory.bytes_by_part.values())
    say(f"The run remembers {fitted.memory.describe()}: {size / len(fitted.memory):,.0f} bytes a query.")
    say(f"{rule.neighbours} neighbours vote with weight {rule.weight:g} at temperature {rule.temperature:g}.")
