"""`xmc search`: ask a run for the labels of a text, once or at a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from xmc.retriever import Retriever


def search(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    text: Annotated[list[str] | None, typer.Argument(help="The query; without one, a prompt asks for queries.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Labels to show.")] = 10,
) -> None:
    """Show the best labels of a text with their scores."""
    from xmc.retriever import Retriever

    retriever = Retriever.load(run)
    console = Console()
    if text:
        console.print(answer(retriever, " ".join(text), k))
        return
    console.print(f"{len(retriever):,} labels. Type a query, or an empty line to leave.")
    while True:
        try:
            query = input("> ").strip()
        except EOFError:
            return
        if not query:
            return
        console.print(answer(retriever, query, k))


def answer(retriever: Retriever, query: str, k: int) -> Table:
    """A table of the k best labels of one query."""
    labels, scores = retriever.predict([query], k)
    found = [(uid, score) for uid, score in zip(labels[0], scores[0], strict=True) if uid is not None]
    texts = retriever.texts([uid for uid, _ in found])
    table = Table("score", "label", "uid", box=None)
    for (uid, score), label in zip(found, texts, strict=True):
        table.add_row(f"{score:.3f}", escape(label), escape(uid) if uid != label else "")
    return table
