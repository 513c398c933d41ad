"""`xmc relabel`: a data set with soft labels, by the posterior of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmc.cli.console import console, say, shell
from xmc.cli.data.options import Overwrite
from xmc.cli.devices import Device, opened
from xmc.cli.stage_options import AsJson, Data, RunDirectory
from xmc.cli.training_options import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from xmc.training.supervision.label_changes import FrequencyGroup, SourceChannel


def relabel(
    run: RunDirectory,
    dataset: Data,
    out: Annotated[Path, typer.Option(help="Data set directory to write.")],
    settings: Settings = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    json_output: AsJson = False,
) -> None:
    """Write a data set whose training labels are as probable as a finished run and all evidence make them.

    Given labels that are probably wrong count nowhere, and labels that are probably missing are added, as the section
    supervision of the configuration says. Train on the result with objective.relevance_weights=true.
    """
    import json
    from dataclasses import asdict

    from xmc.config import TrainConfig
    from xmc.data.dataset import Dataset
    from xmc.data.directory import require_free_directory
    from xmc.data.evidence import EVIDENCE
    from xmc.training.supervision.label_changes import changes_by_frequency, channels_of_sources
    from xmc.training.supervision.relabel import relabel as relabelled

    data = Dataset.load(dataset)
    others = [split for split in data.splits if split != "train"]
    require_free_directory(out, overwrite, [f"{kind}-{split}.parquet" for kind in EVIDENCE for split in others])
    retriever = opened(run, device)
    changes = ["supervision.estimator=posterior", *(settings or [])]
    done = relabelled(retriever, data, TrainConfig.from_mapping(retriever.config.to_mapping(), changes, "--set"))
    done.dataset.save(out, overwrite)
    groups, sources = changes_by_frequency(done), channels_of_sources(done)
    if json_output:
        found = {
            "labels": [asdict(row) for row in groups],
            "sources": [asdict(row) for row in sources],
            "seen": done.seen,
        }
        typer.echo(json.dumps(found, indent=2))
        return
    console.print(_of_frequencies(groups))
    if sources:
        console.print(_of_sources(sources))
    say(f"{done.seen[0].upper()}{done.seen[1:]}.")
    say(f"data set in {out}")
    again = ("xmc", "train", "--dataset", out, "--set", "objective.relevance_weights=true", "--out", f"runs/{out.name}")
    say(f"next: {shell(*again)}")


def _of_frequencies(groups: list[FrequencyGroup]) -> Table:
    table = _table("training pairs by how often their label is given")
    for name in ("label given", "pairs", "left out", "accepted", "doubted", "mean posterior"):
        table.add_column(name, justify="right")
    for row in groups:
        times = f"{row.least:,}" if row.least == row.most else f"{row.least:,} to {row.most:,}"
        numbers = [f"{number:,}" for number in (row.given, row.left_out, row.accepted, row.doubted)]
        table.add_row(times, *numbers, "" if row.posterior is None else f"{row.posterior:.3f}")
    return table


def _of_sources(sources: list[SourceChannel]) -> Table:
    from xmc.terminal import cell

    table = _table("sources of votes")
    table.add_column("source")
    for name in ("votes", "accuracy", "P(+ | relevant)", "P(+ | not)", "precision"):
        table.add_column(name, justify="right")
    for row in sources:
        values = row.accuracy, row.yes_relevant, row.yes_other, row.precision
        numbers = ["" if value is None else f"{value:.3f}" for value in values]
        table.add_row(cell(row.name), f"{row.votes:,}", *numbers)
    return table


def _table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, box=SIMPLE_HEAD)
