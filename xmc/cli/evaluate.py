"""`xmc evaluate`: a run, or written predictions, against a split of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli import complete
from xmc.cli.console import say
from xmc.cli.devices import Device, devices_named
from xmc.cli.lists import parse_integers


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|PREDICTIONS", help="Run directory, what `xmc predict` wrote, or a file of --per-query."
        ),
    ],
    dataset: Annotated[
        str,
        typer.Argument(help="Name of a shipped data set, or a data set directory.", autocompletion=complete.data_sets),
    ],
    split: Annotated[
        str, typer.Option(help="Split to evaluate on; its filter file is applied.", autocompletion=complete.splits)
    ] = "test",
    exact: Annotated[
        bool, typer.Option("--exact", help="Search all labels exactly, whatever the run's index.")
    ] = False,
    k: Annotated[
        list[str] | None,
        typer.Option(
            "--k", "-k", metavar="K...", help="The k of all metrics, such as --k 1 5 10 100.", show_default="1 3 5"
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, separated by commas: p, ndcg, psp, psndcg, recall, mrr, map, f1, rprec, gap; recall@10 is one at "
            "a k of its own.",
            show_default="p,ndcg,psp,psndcg,recall",
            autocompletion=complete.measures,
        ),
    ] = None,
    per_query: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="Write a row a query: its uid, and each metric.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN|PREDICTIONS", help="Compare with this one, query by query, by a paired test."),
    ] = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="Bootstrap intervals over queries.")] = False,
    samples: Annotated[int, typer.Option(help="Samples of the bootstrap and of the paired test.")] = 1000,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples.")] = 0,
    trec: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write run.trec and qrels.trec, for trec_eval, pytrec_eval, ranx."),
    ] = None,
    save_mistakes: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet", help="Write the first predictions that are judged wrong, or rejected."),
    ] = None,
    mistakes: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="How many of these saved mistakes are made again.")
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            help="CSV predictions: what is between labels, and scores, in a cell.", show_default="what their job used"
        ),
    ] = None,
    device: Device = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print P, nDCG, PSP, PSnDCG and R at k, or the metrics that are asked for, in percent."""
    import json

    from xmc.cli.evaluation_job import EvaluationJob
    from xmc.data.dataset import Dataset

    job = EvaluationJob(
        source=source,
        dataset=Dataset.load(dataset),
        split=split,
        exact=exact,
        device=devices_named(device),
        k=parse_integers(k, "--k"),
        metrics=metrics,
        separator=separator,
        against=against,
        intervals=intervals,
        samples=samples,
        confidence=confidence,
        seed=seed,
        per_query=per_query,
        trec=trec,
        save_mistakes=save_mistakes,
        mistakes=mistakes,
    )
    outcome = job.run()
    if json_output:
        typer.echo(json.dumps(outcome.to_dict(), indent=2))
        return
    say(f"{source} on {dataset}, split {split}: {len(outcome.of_queries):,} queries")
    outcome.show()
