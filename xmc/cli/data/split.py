"""`xmc data split`: training queries kept aside as new splits of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmc.cli import complete
from xmc.cli.console import say
from xmc.cli.data.options import Group, Overwrite, Seed, TestShare, ValidationShare
from xmc.cli.next_commands import after_conversion

if TYPE_CHECKING:
    from xmc.data.dataset import Dataset
    from xmc.data.drawing import DrawnSplits

__all__ = ["split", "tell_splits"]


def split(
    dataset: Annotated[
        str,
        typer.Argument(help="Name of a shipped data set, or a data set directory.", autocompletion=complete.data_sets),
    ],
    destination: Annotated[Path, typer.Argument(help="Directory to write.")],
    test: TestShare = 0.0,
    validation: ValidationShare = 0.0,
    seed: Seed = 0,
    group: Group = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw new splits from the training queries, so that every label keeps a query in train.

    Filters, judgements, images and rejected labels go with their queries; other splits stay as they are.
    """
    from xmc.data.drawing import Splitting
    from xmc.data.split_files import split_data_set

    done = split_data_set(dataset, destination, Splitting(test, validation, seed, group), overwrite)
    tell_splits(destination, done.dataset, done.drawn)
    for command in after_conversion(destination, done.drawn.labels):
        say(f"next: {command}")


def tell_splits(destination: Path, dataset: Dataset, drawn: DrawnSplits | None) -> None:
    """Print the sizes of a data set, and how its splits were drawn."""
    sizes = ", ".join(f"{rows:,} {name}" for name, rows in dataset.properties["splits"].items())
    say(f"{destination}: {dataset.properties['labels']:,} labels; queries: {sizes}")
    for sentence in [] if drawn is None else drawn.sentences():
        say(sentence)
