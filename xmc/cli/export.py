"""`xmc export`: a run that needs nothing outside of it, or its encoder for sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Argument(help="Directory to write.")],
    to: Annotated[
        Literal["run", "sentence-transformers"],
        typer.Option(help="What to write: sentence-transformers is the encoder alone."),
    ] = "run",
    tower: Annotated[
        Literal["query", "label"] | None, typer.Option(help="Whose encoder, where they have one each.")
    ] = None,
) -> None:
    """Merge a run's adapters into the backbone they were trained on, and save it whole, or its encoder alone."""
    from xmc.errors import InputError
    from xmc.search.retriever import Retriever
    from xmc.search.run_directory import RunDirectory

    if to == "sentence-transformers":
        Retriever.load(run).export_sentence_transformers(out, tower)
        typer.echo(f"encoder in {out}; SentenceTransformer({str(out)!r}) loads it")
        return
    if tower is not None:
        raise InputError("--tower chooses an encoder for --to sentence-transformers; a run holds both.")
    RunDirectory(out).require_free()
    retriever = Retriever.load(run)
    retriever.model.merge()
    retriever.save(out)
    typer.echo(f"run with its whole backbone in {out}")
