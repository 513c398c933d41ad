"""Options that commands on data sets in any format share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xmc.data.readers import TabularColumns

__all__ = ["Format", "Labels", "Rejected", "Relevance", "Separator", "Source", "Text", "Uid", "columns_of"]

Source = Annotated[Path, typer.Argument(help="Directory (or Parquet, CSV, JSONL file) in any known format.")]
Format = Annotated[
    str | None,
    typer.Option(
        help="canonical, xml-json, xml-sparse, bag-of-words, dexml or tabular; by default what the files show."
    ),
]
Uid = Annotated[str, typer.Option("--uid-column", help="Tabular: column of uids.")]
Text = Annotated[str, typer.Option("--text-column", help="Tabular: column of texts.")]
Labels = Annotated[str, typer.Option("--labels-column", help="Tabular: column of labels, a list or a string.")]
Relevance = Annotated[str, typer.Option("--relevance-column", help="Tabular: column of relevances, a list.")]
Rejected = Annotated[
    str,
    typer.Option(
        "--rejected-column",
        help="Tabular: column of labels that were judged not relevant, a list or a string; may be missing.",
    ),
]
Separator = Annotated[str, typer.Option(help="Tabular: what separates the labels of a string.")]


def columns_of(uid: str, text: str, labels: str, relevance: str, rejected: str, separator: str) -> TabularColumns:
    """The columns that the options name."""
    from xmc.data.readers import TabularColumns

    return TabularColumns(
        uid=uid, text=text, labels=labels, relevance=relevance, rejected=rejected, separator=separator
    )
