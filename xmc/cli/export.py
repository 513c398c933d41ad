"""`xmc export`: a run that needs nothing outside of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    out: Annotated[Path, typer.Argument(help="Run directory to write.")],
) -> None:
    """Merge a run's adapters into the backbone they were trained on, and save it whole."""
    from xmc.retriever import Retriever, require_free

    require_free(out)
    retriever = Retriever.load(run)
    retriever.model.merge()
    retriever.save(out)
    typer.echo(f"run with its whole backbone in {out}")
