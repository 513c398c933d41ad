"""`xmc data validate`: every defect of a data set, with file and line."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from xmc.data.rows import Defect


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
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Count defects by reason, with the first of each, in place of listing all."),
    ] = False,
) -> None:
    """List every defect with file and line; exit code 2 when there is an error among them."""
    from xmc.data.readers import TabularColumns, open_source
    from xmc.data.validate import validate as validate_dataset

    counts: Counter[str] = Counter()
    by_reason: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Defect] = {}
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
        by_reason[defect.severity, defect.reason] += 1
        first.setdefault((defect.severity, defect.reason), defect)
        if not summary:
            typer.echo(f"{defect.severity}: {defect}")
    for kind, count in sorted(by_reason.items(), key=lambda item: (item[0][0], -item[1], item[0])) if summary else ():
        severity, reason = kind
        typer.echo(f"{severity}: {count:,} x {reason}, first: {first[kind]}")
    typer.echo(f"{source}: {counts['error']:,} errors, {counts['warning']:,} warnings")
    if counts["error"]:
        raise typer.Exit(2)
