"""`xmc embed`: files of texts in, one file of embeddings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from xmc.cli.groups import with_groups
from xmc.cli.job_options import Input, JobArguments, tell


@with_groups
def embed(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    source: Input,
    output: Annotated[
        Path, typer.Option("--output", help="File to write, NAME.arrow or NAME.npy.", show_default=False)
    ],
    side: Annotated[Literal["query", "label"], typer.Option(help="Whose texts they are.")] = "query",
    *,
    job: JobArguments,
) -> None:
    """Embed every row by a run's encoder: input for `xmc predict --embedding-column`, or for tools of your own."""
    from xmc.batch import embed_files

    summary = embed_files(run, source, output, side, options=job.options())
    tell(summary, f"embedded {summary.predicted:,} of {summary.rows:,} rows into {output}")
