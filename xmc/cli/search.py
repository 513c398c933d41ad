"""`xmc search`: ask a run for the labels of a text, or for labels like others, once or at a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from xmc.cli.console import console

if TYPE_CHECKING:
    from xmc.search.queries import Query
    from xmc.search.retriever import Retriever

UNLIKE = -0.5
"""Weight of all negative examples together; the text weighs 1, and the labels named by --like weigh 1 together."""


def search(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    text: Annotated[
        list[str] | None,
        typer.Argument(help="The query; without one, and without --like, a prompt asks for queries."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Labels to show.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="Condition over the label columns, such as 'market == \"de\" and price < 10'.")
    ] = None,
    include: Annotated[list[str] | None, typer.Option(help="Uid of a label that alone may be shown; repeat.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Uid of a label that is never shown; repeat.")] = None,
    like: Annotated[list[str] | None, typer.Option(help="Uid of a label to be like; repeat.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="Text to be unlike, a negative example; repeat.")] = None,
    diversity: Annotated[float, typer.Option(help="From 0, the best labels, to 1, the least alike.")] = 0.0,
) -> None:
    """Show the best labels of a text with their scores."""
    from xmc.search.retriever import Retriever

    retriever = Retriever.load(run)
    retriever.texts([*(include or ()), *(exclude or ())])  # a mistyped uid is an error here, not an empty answer
    options = {"include": include, "exclude": exclude, "where": where, "diversity": diversity}
    if text or like:
        query = combined(" ".join(text or ()), like or [], unlike or [])
        console.print(answer(retriever, query, k, **options))
        return
    console.print(f"{len(retriever):,} labels. Type a query, or an empty line to leave.")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        console.print(answer(retriever, combined(line, [], unlike or []), k, **options))


def combined(text: str, like: list[str], unlike: list[str]) -> Query:
    """A query of a text, if it is not empty, of labels and of negative examples."""
    from xmc.search.queries import Query

    weights = {text: 1.0} if text else {}
    for example in unlike:
        weights[example] = weights.get(example, 0.0) + UNLIKE / len(unlike)
    return Query(weights, like)


def answer(retriever: Retriever, query: Query, k: int, **options: Any) -> Table:
    """A table of the k best labels of one query; options as of Retriever.predict."""
    labels, scores = retriever.predict([query], k, **options)
    pairs = [(uid, score) for uid, score in zip(labels[0], scores[0], strict=True) if uid is not None]
    texts = retriever.texts([uid for uid, _ in pairs])
    table = Table("score", "label", "uid", box=None)
    for (uid, score), label in zip(pairs, texts, strict=True):
        table.add_row(f"{score:.3f}", escape(label), escape(uid) if uid != label else "")
    return table
