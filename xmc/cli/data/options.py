"""Options that commands on data sets in any format share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli import complete

__all__ = [
    "BagsFile",
    "Delimiter",
    "Encoding",
    "Format",
    "Group",
    "LabelPrefix",
    "LabelText",
    "LabelUid",
    "Labelled",
    "Labels",
    "Language",
    "MaxLine",
    "Overwrite",
    "Rejected",
    "Relevance",
    "Seed",
    "Separator",
    "SetsFile",
    "Source",
    "TestShare",
    "Text",
    "Uid",
    "ValidationShare",
    "VotesFile",
]

Source = Annotated[Path, typer.Argument(help="Directory (or Parquet, CSV, JSONL file) in any known format.")]
Format = Annotated[
    str | None,
    typer.Option(
        help="Format of the source; by default what the files show.",
        autocompletion=complete.formats,
    ),
]
Uid = Annotated[
    str | None,
    typer.Option(
        "--uid-column",
        help='Column of uids; by default "uid" where a file has it, else rows are numbered.',
        show_default=False,
    ),
]
Text = Annotated[str, typer.Option("--text-column", help="Column of texts.")]
Labels = Annotated[str, typer.Option("--labels-column", help="Column of labels, a list or a string.")]
Relevance = Annotated[
    str | None,
    typer.Option(
        "--relevance-column",
        help='Column of relevances; by default "relevance" where a file has it.',
        show_default=False,
    ),
]
Rejected = Annotated[
    str | None,
    typer.Option(
        "--rejected-column",
        help='Column of labels that were judged not relevant; by default "rejected" where a file has it.',
        show_default=False,
    ),
]
Labelled = Annotated[
    str | None,
    typer.Option(
        "--labelled-column",
        help='Column that is false where nothing is known of a query; by default "labelled" where a file has it.',
        show_default=False,
    ),
]
VotesFile = Annotated[
    Path | None,
    typer.Option(
        "--votes", help="File of votes on pairs of train: columns query, label, source, value.", show_default=False
    ),
]
SetsFile = Annotated[
    Path | None,
    typer.Option(
        "--sets", help="File of candidate labels of train: columns query, labels, least, most.", show_default=False
    ),
]
BagsFile = Annotated[
    Path | None,
    typer.Option(
        "--bags", help="File of label proportions of train: columns queries, labels, counts.", show_default=False
    ),
]
LabelUid = Annotated[str, typer.Option("--label-uid-column", help="Label table: column of uids.")]
LabelText = Annotated[str, typer.Option("--label-text-column", help="Label table: column of texts.")]
Separator = Annotated[
    str | None,
    typer.Option(
        help='What cuts a string of labels; by default "," in CSV, and nothing in files that have lists.',
        show_default=False,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of text files, such as cp1252 or latin-1; by default UTF-8.", show_default=False),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="What is between columns of CSV, such as ; or tab; by default what the first line shows.",
        show_default=False,
        callback=lambda delimiter: "\t" if delimiter in ("\\t", "tab") else delimiter,
    ),
]
MaxLine = Annotated[
    int | None,
    typer.Option(
        "--max-line",
        min=1,
        help="Longest line of a text file, in characters; by default 16,777,216.",
        show_default=False,
    ),
]
LabelPrefix = Annotated[
    str | None, typer.Option(help='fastText: what labels begin with; by default "__label__".', show_default=False)
]
Language = Annotated[
    str | None,
    typer.Option(help="Annif: language of the names of subjects; by default en, or the only one.", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is already there.")]
TestShare = Annotated[
    float, typer.Option("--test", min=0, max=1, help="Share of the training queries that becomes the split test.")
]
ValidationShare = Annotated[
    float,
    typer.Option("--validation", min=0, max=1, help="Share of the training queries that becomes the split validation."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw of splits.")]
Group = Annotated[
    str | None,
    typer.Option("--group", help="Column of the queries; those of one value stay in one split.", show_default=False),
]
