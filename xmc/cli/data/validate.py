"""`xmc data validate`: every defect of a data set, with file and line."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from xmc.cli.console import say
from xmc.cli.data.columns import EvidenceOptions, SourceColumns
from xmc.cli.data.options import Format, Source
from xmc.cli.groups import with_groups

if TYPE_CHECKING:
    from xmc.data.rows import Defect


@with_groups
def validate(
    source: Source,
    format: Format = None,
    *,
    columns: SourceColumns,
    evidence: EvidenceOptions,
    summary: Annotated[
        bool,
        typer.Option("--summary", help="Count defects by reason, with the first of each, in place of listing all."),
    ] = False,
) -> None:
    """List every defect with file and line; exit code 2 when there is an error among them."""
    from xmc.data.readers import open_source
    from xmc.data.validate import validate as validate_dataset

    counts: Counter[str] = Counter()
    by_reason: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], Defect] = {}
    tabular = columns.tabular()
    opened = evidence.beside(open_source(source, format, tabular), tabular.form)
    for defect in validate_dataset(opened):
        counts[defect.severity] += 1
        by_reason[defect.severity, defect.reason] += 1
        first.setdefault((defect.severity, defect.reason), defect)
        if not summary:
            say(f"{defect.severity}: {defect}")
    for kind, count in sorted(by_reason.items(), key=lambda item: (item[0][0], -item[1], item[0])) if summary else ():
        severity, reason = kind
        say(f"{severity}: {count:,} x {reason}, first: {first[kind]}")
    say(f"{source}: {counts['error']:,} errors, {counts['warning']:,} warnings")
    if counts["error"]:
        raise typer.Exit(2)
