"""`xmc embed`: files of texts in, one file of embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from xmc.cli.job_options import (
    Address,
    Delimiter,
    Encoding,
    Engine,
    Input,
    OnBadRow,
    PartRows,
    Resume,
    Text,
    Tokens,
    Uid,
    Workers,
    tell,
)


def embed(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    source: Input,
    output: Annotated[
        Path, typer.Option("--output", help="File to write, NAME.arrow or NAME.npy.", show_default=False)
    ],
    side: Annotated[Literal["query", "label"], typer.Option(help="Whose texts they are.")] = "query",
    resume: Resume = False,
    on_bad_row: OnBadRow = "error",
    uid_column: Uid = None,
    text_column: Text = None,
    tokens_column: Tokens = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    rows_per_part: PartRows = 100_000,
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Embed every row by a run's encoder: input for `xmc predict --embedding-column`, or for tools of your own."""
    from xmc.batch import Columns, JobOptions, embed_files

    columns = Columns(uid_column, text_column, tokens_column, encoding=encoding, delimiter=delimiter)
    options = JobOptions(columns, on_bad_row, rows_per_part, resume, engine, workers, address)
    summary = embed_files(run, source, output, side, options=options)
    tell(summary, f"embedded {summary.predicted:,} of {summary.rows:,} rows into {output}")
