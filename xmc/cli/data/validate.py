"""`xmc data validate`: every defect of a data set, with file and line."""

from __future__ import annotations

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


def validate(
    source: Source,
    format: Format = None,
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
    """List every defect with file and line; exit code 2 when there is an error among them."""
    from xmc.data.readers import TabularColumns, open_source
    from xmc.data.validate import validate as validate_dataset

    counts = {"error": 0, "warning": 0}
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
    for defect in validate_dataset(open_source(source, format, columns)):
        counts[defect.severity] += 1
        typer.echo(f"{defect.severity}: {defect}")
    typer.echo(f"{source}: {counts['error']:,} errors, {counts['warning']:,} warnings")
    if counts["error"]:
        raise typer.Exit(2)
