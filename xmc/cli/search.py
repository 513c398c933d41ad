"""`xmc search`: ask a run for the labels of a text, or for labels like others, once or at a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from xmc.cli.console import console
from xmc.cli.devices import Device, TrustedKeys, opened
from xmc.shown import visible
from xmc.terminal import cell

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
    explain: Annotated[bool, typer.Option("--explain", help="Say what speaks for each label.")] = False,
    rerank: Annotated[
        bool | None,
        typer.Option("--rerank/--no-rerank", help="Demand the run's re-ranker, or leave it out.", show_default=False),
    ] = None,
    device: Device = "auto",
    trusted_key: TrustedKeys = None,
) -> None:
    """Show the best labels of a text with their scores."""
    retriever = opened(run, device, trusted_key)
    retriever.texts([*(include or ()), *(exclude or ())])  # a mistyped uid is an error here, not an empty answer
    options = {"include": include, "exclude": exclude, "where": where, "diversity": diversity}
    options |= {"explain": explain, "rerank": rerank}
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
    """A table of the k best labels of one query; options as of Retriever.answer."""
    from xmc.search.reasons import in_words

    found = retriever.answer([query], k, **options)
    texts = found.labels.texts_of(found.labels.rows_of_ids(found.ids[0][found.ids[0] >= 0]))
    said = found.explanation
    table = Table("score", "label", "uid", *(["because of"] if said is not None else []), box=None)
    for place, label in enumerate(texts):
        uid = found.uids[0, place]
        why = [cell(in_words(said[0, place] or ()))] if said is not None else []
        table.add_row(f"{found.scores[0, place]:.3f}", cell(label), Text(visible(uid)) if uid != label else "", *why)
    return table
