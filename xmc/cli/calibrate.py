"""`xmc calibrate`: what a run's scores are worth, from queries it was not trained on; and whether that still holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from xmc.cli import complete
from xmc.cli.console import console, say
from xmc.cli.devices import Device, opened
from xmc.cli.job_options import Delimiter, Encoding, MaxLine, Text
from xmc.cli.next_commands import after_calibration
from xmc.cli.texts import is_file_of_texts, require_no_columns, texts_of
from xmc.terminal import cell

if TYPE_CHECKING:
    from xmc.batch import Columns
    from xmc.calibration.calibration import Calibration
    from xmc.evaluation.check import Checked
    from xmc.search.retriever import Retriever


def calibrate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Name of a shipped data set, or its directory; with --check also a file of texts.",
            autocompletion=complete.data_sets,
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help='Split that the run was not trained on. By default "calibration": that split, or what training kept '
            'aside; with --check "test".',
            show_default=False,
            autocompletion=complete.splits,
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Labels that are looked at for each query.")] = 200,
    norm: Annotated[
        float, typer.Option(min=1, help="Norm p of the distance between label sets and probabilities.")
    ] = 2.0,
    label_dependency: Annotated[
        float,
        typer.Option(min=0, help="What a label set costs for each label that sets it apart from those of training."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Which half of the queries probabilities are fitted on.")] = 0,
    check: Annotated[
        bool,
        typer.Option("--check", help="Test on these queries what the run was calibrated for; exit code 1 if it fails."),
    ] = False,
    text_column: Text = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    max_line: MaxLine = None,
    device: Device = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Calibrate a run: probabilities, label sets with a guarantee, and decisions, kept with the run."""
    import json

    from xmc.batch import Columns
    from xmc.data.dataset import Dataset
    from xmc.evaluation.calibrate import calibrate as fit

    columns = Columns(text=text_column, encoding=encoding, delimiter=delimiter, max_line=max_line)
    if not (check and is_file_of_texts(dataset)):
        require_no_columns(columns, dataset)
    retriever = opened(run, device)
    if check:
        checked = _checked(retriever, run, dataset, split or "test", columns)
        if json_output:
            typer.echo(json.dumps(checked.to_dict(), indent=2))
        else:
            for sentence in checked.sentences():
                say(sentence)
        raise typer.Exit(0 if checked.holds else 1)
    data = Dataset.load(dataset)
    result = fit(
        retriever,
        data,
        split or "calibration",
        candidates=candidates,
        norm=norm,
        label_dependency=label_dependency,
        seed=seed,
    )
    retriever.save(run, overwrite=True)
    if json_output:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    _tell(result)
    say(f"next: {after_calibration(run, data, result)}")


def _checked(retriever: Retriever, run: Path, source: str, split: str, columns: Columns) -> Checked:
    from xmc.data.dataset import Dataset
    from xmc.evaluation.check import check, check_texts

    if is_file_of_texts(source):
        return check_texts(retriever, texts_of(source, split, run, columns))
    return check(retriever, Dataset.load(source), split)


def _tell(result: Calibration) -> None:
    from xmc.calibration.decisions import Policy

    source = result.source
    say(
        f"{source.queries:,} queries of {source.dataset}, split {source.split}: {source.fitted:,} for probabilities, "
        f"{source.queries - source.fitted:,} for what follows. {source.recall:.1%} of their true labels are among "
        f"{result.candidates:,} candidates."
    )
    if source.without_positives:
        say(f"{source.without_positives:,} queries have no true label; what is said of recall is without them.")
    tried = ", ".join(f"{name} {error:.4f}" for name, error in result.brier.items())
    say(f"probabilities: {result.probabilities.method}; Brier scores: {tried}")
    table = Table(title="Expected calibration error, percent", box=SIMPLE_HEAD)
    table.add_column("predictions")
    for name in ("error", "of perfect ones"):
        table.add_column(name, justify="right")
    for group in (*result.reliability, *result.by_frequency):
        if group.bins:
            table.add_row(cell(group.name), f"{100 * group.error:.2f}", f"{100 * group.floor:.2f}")
    console.print(table)
    table = Table(title="Label sets", box=SIMPLE_HEAD)
    table.add_column("guarantee")
    for name in ("mean size", "median", "largest", "empty, %"):
        table.add_column(name, justify="right")
    for name, sizes in result.sizes.items():
        numbers = (f"{sizes.mean:.1f}", f"{sizes.median:.0f}", f"{sizes.largest:,}", f"{100 * sizes.empty:.1f}")
        table.add_row(cell(name), *numbers)
    if result.sizes:
        console.print(table)
    say(f"The highest recall that {result.candidates:,} candidates can guarantee is {1 - result.misses.lowest():.1%}.")
    policy = Policy()
    expected = result.histogram.expect(policy).sentence()
    say(f"Deciding at {policy.automatic:g} and {policy.person:g}: {expected}")
