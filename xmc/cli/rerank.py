"""`xmc rerank`: a re-ranker of the first labels that a run finds."""

from __future__ import annotations

from typing import Annotated

import typer

from xmc.cli.console import console, say
from xmc.cli.devices import Device, opened
from xmc.cli.stage_options import AsJson, Data, RunDirectory, Share, Split, before_and_after


def rerank(
    run: RunDirectory,
    dataset: Data,
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
    split: Split = None,
    share: Share = None,
    device: Device = "auto",
    json_output: AsJson = False,
) -> None:
    """Fit a model that orders the first labels of a search anew, and keep it with the run."""
    import json

    from xmc.evaluation.fit_reranker import fit_reranker

    retriever = opened(run, device)
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
    rows = [(name, value, fitted.after[name]) for name, value in fitted.before.items()]
    console.print(before_and_after(f"{fitted.queries:,} queries, by cross-fitting", ("before", "re-ranked"), rows))
    families = ", ".join(feature.name for feature in fitted.stage.features)
    say(f"The run re-ranks its first {shortlist} labels by {model} on {families}. Without: --no-rerank.")
