"""`xmc rerank`: a re-ranker of the first labels that a run finds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from xmc.cli import complete
from xmc.cli.console import console, say


def rerank(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Name of a data set, or its directory.", autocompletion=complete.data_sets),
    ],
    model: Annotated[str, typer.Option(help="What scores labels anew: trees, or logistic.")] = "trees",
    encoder: Annotated[
        str | None,
        typer.Option(help="Directory of another encoder, whose cosine is looked at too.", show_default="the memory's"),
    ] = None,
    cross_encoder: Annotated[
        str | None,
        typer.Option(help="Directory of a model that reads query and label together.", show_default=False),
    ] = None,
    shortlist: Annotated[int, typer.Option(help="Labels of a query that are scored anew.")] = 50,
    split: Annotated[
        str | None,
        typer.Option(
            help="Queries to fit on; by default what training kept aside.",
            show_default=False,
            autocompletion=complete.splits,
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Share of these queries; the others stay for calibration.", show_default=False)
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Fit a model that orders the first labels of a search anew, and keep it with the run."""
    import json

    from xmc.evaluation.fit_reranker import fit_reranker
    from xmc.search.retriever import Retriever

    retriever = Retriever.load(run)
    fitted = fit_reranker(
        retriever,
        dataset,
        model=model,
        shortlist=shortlist,
        split=split,
        share=share,
        encoder=encoder,
        cross_encoder=cross_encoder,
    )
    retriever.save(run, overwrite=True)
    if json_output:
        found = {"queries": fitted.queries, "before": dict(fitted.before), "after": dict(fitted.after)}
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table(title=f"{fitted.queries:,} queries, by cross-fitting", box=SIMPLE_HEAD)
    for name in ("metric", "before", "re-ranked"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, value in fitted.before.items():
        table.add_row(name, f"{value:.2f}", f"{fitted.after[name]:.2f}")
    console.print(table)
    families = ", ".join(feature.name for feature in fitted.stage.features)
    say(f"The run re-ranks its first {shortlist} labels by {model} on {families}. Without: --no-rerank.")
