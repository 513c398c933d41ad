"""`xmc data validate`: every defect of a data set, with file and line."""

from __future__ import annotations

import typer

from xmc.cli.data.options import Format, Labels, Rejected, Relevance, Separator, Source, Text, Uid, columns_of


def validate(
    source: Source,
    format: Format = None,
    uid_column: Uid = "uid",
    text_column: Text = "text",
    labels_column: Labels = "labels",
    relevance_column: Relevance = "relevance",
    rejected_column: Rejected = "rejected",
    separator: Separator = ",",
) -> None:
    """List every defect with file and line; exit code 2 when there is an error among them."""
    from xmc.data.readers import open_source
    from xmc.data.validate import validate as validate_dataset

    counts = {"error": 0, "warning": 0}
    columns = columns_of(uid_column, text_column, labels_column, relevance_column, rejected_column, separator)
    for defect in validate_dataset(open_source(source, format, columns)):
        counts[defect.severity] += 1
        typer.echo(f"{defect.severity}: {defect}")
    typer.echo(f"{source}: {counts['error']:,} errors, {counts['warning']:,} warnings")
    if counts["error"]:
        raise typer.Exit(2)
