"""`xmc evaluate`: a run, or written predictions, against a split of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from xmc.cli.console import console, say

if TYPE_CHECKING:
    from xmc.batch.evaluation import WrittenEvaluation
    from xmc.evaluation.evaluate import Evaluation


def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|PREDICTIONS", help="Run directory, or what `xmc predict` wrote.")
    ],
    dataset: Annotated[str, typer.Argument(help="Name of a shipped data set, or a data set directory.")],
    split: Annotated[str, typer.Option(help="Split to evaluate on; its filter file is applied.")] = "test",
    exact: Annotated[
        bool, typer.Option("--exact", help="Search all labels exactly, whatever the run's index.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print P, nDCG, PSP, PSnDCG and R at k, in percent."""
    import json

    from xmc.batch.evaluation import evaluate_files, is_predictions
    from xmc.data.dataset import Dataset
    from xmc.errors import ConfigError
    from xmc.evaluation.evaluate import evaluate as measure
    from xmc.search.retriever import Retriever

    evaluation: Evaluation | WrittenEvaluation
    if is_predictions(source):
        if exact:
            raise ConfigError("--exact searches by a run; written predictions are as they are.")
        evaluation = evaluate_files(source, Dataset.load(dataset), split)
        notes = _notes(evaluation)
    else:
        evaluation = measure(Retriever.load(source), Dataset.load(dataset), split, exact)
        notes = []
    if json_output:
        typer.echo(json.dumps(evaluation.to_dict(), indent=2))
        return
    title = f"{source} on {dataset}, split {split}: {evaluation.queries:,} queries"
    say(title)
    table = Table("metric")
    table.add_column("percent", justify="right")
    for name, value in evaluation.values.items():
        table.add_row(name, f"{value:.2f}")
    if hasattr(evaluation, "queries_per_second"):
        table.add_row("queries/s", f"{evaluation.queries_per_second:,.0f}", style="dim")
    console.print(table)
    for note in notes:
        say(note)


def _notes(evaluation: WrittenEvaluation) -> list[str]:
    """What a reader of the numbers should know."""
    notes = []
    if evaluation.missing:
        notes.append(f"{evaluation.missing:,} queries have no list; they count as not answered.")
    if evaluation.unknown:
        notes.append(f"{evaluation.unknown:,} lists are of queries that the split does not have; they are left out.")
    deepest = max(int(name.partition("@")[2]) for name in evaluation.values)
    if evaluation.longest < deepest + evaluation.filtered:
        notes.append(
            f"The filter takes up to {evaluation.filtered} labels from a list of {evaluation.longest}: for R@{deepest} to be "
            f"exact, predict with --k {deepest + evaluation.filtered}."
        )
    return notes
