"""`xmc memory`: training queries that searches of a run recall."""

from __future__ import annotations

from typing import Annotated

import typer

from xmc.cli.console import console, say
from xmc.cli.devices import Device, opened
from xmc.cli.stage_options import AsJson, Data, RunDirectory, Share, Split, before_and_after


def memory(
    run: RunDirectory,
    dataset: Data,
    encoder: Annotated[
        str,
        typer.Option(
            help="What makes the vectors of queries: own, or a directory of sentence-transformers or of a run; "
            '"auto" for own, only where it gains.'
        ),
    ] = "auto",
    split: Split = None,
    share: Share = None,
    device: Device = "auto",
    json_output: AsJson = False,
) -> None:
    """Remember the training queries: the labels of those most like a query join its answer. Kept with the run."""
    import json

    from xmc.evaluation.memory import fit_memory

    retriever = opened(run, device)
    fitted = fit_memory(retriever, dataset, encoder, split=split, share=share)
    if fitted.memory is not None:
        retriever.save(run, overwrite=True)
    if json_output:
        typer.echo(json.dumps(fitted.to_dict(), indent=2))
        return
    rows = [(name, value, fitted.with_votes[name]) for name, value in fitted.without.items()]
    console.print(before_and_after(f"{fitted.queries:,} queries", ("without", "with votes"), rows))
    if fitted.memory is None:
        say("The run stays as it is: no way to vote gains for certain with P@1 and PSP@5 at least as high.")
        return
    rule, size = fitted.rule, sum(fitted.memory.bytes_by_part.values())
    say(f"The run remembers {fitted.memory.describe()}: {size / len(fitted.memory):,.0f} bytes a query.")
    say(f"{rule.neighbours} neighbours vote with weight {rule.weight:g} at temperature {rule.temperature:g}.")
