"""`xmc data convert`: any known format in, the canonical directory out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from xmc.cli.console import say
from xmc.cli.data.columns import EvidenceOptions, SourceColumns
from xmc.cli.data.options import (
    Format,
    Group,
    Overwrite,
    Seed,
    Source,
    TestShare,
    ValidationShare,
)
from xmc.cli.data.split import tell_splits
from xmc.cli.groups import with_groups
from xmc.cli.next_commands import after_conversion


@with_groups
def convert(
    source: Source,
    destination: Annotated[Path, typer.Argument(help="Directory to write in the canonical format.")],
    format: Format = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default the directory's.")] = None,
    overwrite: Overwrite = False,
    on_bad_row: Annotated[
        Literal["error", "drop"], typer.Option(help="error: refuse at the first; drop: leave out and count.")
    ] = "error",
    *,
    columns: SourceColumns,
    evidence: EvidenceOptions,
    test: TestShare = 0.0,
    validation: ValidationShare = 0.0,
    seed: Seed = 0,
    group: Group = None,
    lowercase: Annotated[
        bool, typer.Option("--lowercase", help="Labels in lower case; those that become equal are one.")
    ] = False,
    strip: Annotated[bool, typer.Option("--strip", help="Labels without white space around them.")] = False,
    min_count: Annotated[
        int, typer.Option(min=1, help="Leave out labels with fewer positive queries in train, before it is split.")
    ] = 1,
) -> None:
    """Convert a data set into the canonical directory that all other commands read."""
    from xmc.data.cleaning import LabelCleaning
    from xmc.data.convert import convert as convert_dataset
    from xmc.data.drawing import Splitting
    from xmc.data.readers import open_source
    from xmc.errors import ConfigError

    tabular = columns.tabular(group)
    opened = open_source(source, format, tabular)
    if group is not None and not opened.has_groups:
        raise ConfigError(
            f"--group names a column of queries, which the layout {opened.format} does not have; leave it out."
        )
    done = convert_dataset(
        evidence.beside(opened, tabular.form),
        destination,
        name=name,
        overwrite=overwrite,
        on_bad_row=on_bad_row,
        cleaning=LabelCleaning(lowercase, strip, min_count),
        splitting=Splitting(test, validation, seed, group) if test or validation else None,
    )
    tell_splits(destination, done.dataset, done.drawn)
    for reason, count in sorted(done.dropped.items()):
        say(f"dropped: {count:,} x {reason}")
    for reason, count in sorted(done.warnings.items()):
        say(f"warning: {count:,} x {reason}")
    for remark in done.remarks:
        say(f"warning: {remark}")
    for command in after_conversion(destination, done.positives, done.again):
        say(f"next: {command}")
