"""`xmc index`: index a run's label embeddings anew, with another design."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def index(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    design: Annotated[str, typer.Argument(help='"exact", or a FAISS factory string such as HNSW32 or IVF256,Flat.')],
    out: Annotated[Path | None, typer.Option(help="Run directory to write; the same one by default.")] = None,
) -> None:
    """Build another index over the same label embeddings and save the run with it."""
    import time
    from dataclasses import replace

    from xmc.indexes.factory import build_index
    from xmc.retriever import Retriever

    retriever = Retriever.load(run)
    start = time.perf_counter()
    built = build_index(design, retriever.model.dimension)
    built.build(retriever.embeddings, retriever.labels.ids)
    seconds = time.perf_counter() - start
    retriever.index, retriever.config = built, replace(retriever.config, index=design)
    retriever.save(out or run, overwrite=out is None or out == run)
    typer.echo(f"indexed {len(retriever):,} labels as {design} in {seconds:.1f} s, run in {out or run}")
