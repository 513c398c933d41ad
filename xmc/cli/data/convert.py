"""`xmc data convert`: any known format in, the canonical directory out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from xmc.cli.data.options import (
    Delimiter,
    Encoding,
    Format,
    LabelPrefix,
    Labels,
    LabelText,
    LabelUid,
    Language,
    Rejected,
    Relevance,
    Separator,
    Source,
    Text,
    Uid,
)


def convert(
    source: Source,
    destination: Annotated[Path, typer.Argument(help="Directory to write in the canonical format.")],
    format: Format = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default the directory's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is already there.")] = False,
    on_bad_row: Annotated[
        Literal["error", "drop"], typer.Option(help="error: refuse at the first; drop: leave out and count.")
    ] = "error",
    uid_column: Uid = None,
    text_column: Text = "text",
    labels_column: Labels = "labels",
    relevance_column: Relevance = None,
    rejected_column: Rejected = None,
    label_uid_column: LabelUid = "uid",
    label_text_column: LabelText = "text",
    separator: Separator = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    label_prefix: LabelPrefix = None,
    language: Language = None,
) -> None:
    """Convert a data set into the canonical directory that all other commands read."""
    from xmc.data.convert import convert as convert_dataset
    from xmc.data.readers import TabularColumns, open_source

    columns = TabularColumns(
        uid_column,
        text_column,
        labels_column,
        relevance_column,
        rejected_column,
        separator,
        label_uid_column,
        label_text_column,
        encoding,
        delimiter,
        label_prefix=label_prefix,
        language=language,
    )
    done = convert_dataset(
        open_source(source, format, columns),
        destination,
        name=name,
        overwrite=overwrite,
        on_bad_row=on_bad_row,
    )
    data = done.dataset
    sizes = ", ".join(f"{rows:,} {split}" for split, rows in data.properties["splits"].items())
    typer.echo(f"{destination}: {data.properties['labels']:,} labels; queries: {sizes}")
    for reason, count in sorted(done.dropped.items()):
        typer.echo(f"dropped: {count:,} x {reason}")
    for reason, count in sorted(done.warnings.items()):
        typer.echo(f"warning: {count:,} x {reason}")
    for remark in done.remarks:
        typer.echo(f"warning: {remark}")
