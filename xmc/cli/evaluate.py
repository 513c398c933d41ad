"""`xmc evaluate`: a run, or written predictions, against a split of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xmc.cli import complete
from xmc.cli.console import say
from xmc.cli.lists import parse_integers

if TYPE_CHECKING:
    from xmc.data.dataset import Dataset
    from xmc.evaluation.evaluated import Evaluated


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
    json_output: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Print P, nDCG, PSP, PSnDCG and R at k, or the metrics that are asked for, in percent."""
    import json

    from xmc.cli.evaluation_outcome import Outcome
    from xmc.data.dataset import Dataset
    from xmc.errors import ConfigError
    from xmc.evaluation.per_query import QueryMetrics

    data = Dataset.load(dataset)
    asked = (parse_integers(k, "--k"), metrics)
    of_predictions = {"--trec": trec, "--save-mistakes": save_mistakes, "--mistakes": mistakes}
    evaluated = None
    if QueryMetrics.is_file(source):
        if exact or any(asked) or any(of_predictions.values()):
            raise ConfigError(
                f"{source} holds metrics of queries, which are as they are; name a run or predictions instead."
            )
        of_queries = QueryMetrics.load(source)
    else:
        _require_use(exact, separator, [path for path in (source, against) if path and not QueryMetrics.is_file(path)])
        evaluated = _evaluated(source, data, split, exact, asked, any(of_predictions.values()), separator)
        of_queries = QueryMetrics.from_evaluated(str(source), evaluated)
    outcome = Outcome(of_queries, evaluated, confidence)
    if intervals:
        outcome.intervals = of_queries.intervals(samples, confidence, seed)
    if against is not None:
        if QueryMetrics.is_file(against):
            other = QueryMetrics.load(against)
        else:
            other = QueryMetrics.from_evaluated(
                str(against), _evaluated(against, data, split, exact, asked, False, separator)
            )
        outcome.differences = of_queries.against(other, samples, confidence, seed)
    if per_query is not None:
        of_queries.save(per_query)
        outcome.written.append(per_query)
    outcome.write_predictions(data, split, trec, save_mistakes, mistakes)
    if json_output:
        typer.echo(json.dumps(outcome.to_dict(), indent=2))
        return
    say(f"{source} on {dataset}, split {split}: {len(of_queries):,} queries")
    outcome.show()


def _require_use(exact: bool, separator: str | None, sources: list[Path]) -> None:
    """Raise ConfigError for an option that says something of none of the sources, runs or written predictions."""
    from xmc.batch.evaluation import is_predictions
    from xmc.errors import ConfigError

    written = [is_predictions(source) for source in sources]
    if exact and all(written):
        raise ConfigError("--exact searches by a run; written predictions are as they are.")
    if separator is not None and not any(written):
        raise ConfigError("--separator is for written predictions; a run has none.")


def _evaluated(
    source: Path,
    dataset: Dataset,
    split: str,
    exact: bool,
    asked: tuple[list[int] | None, str | None],
    keep_predictions: bool,
    separator: str | None,
) -> Evaluated:
    """The evaluation of a run or of written predictions."""
    from xmc.batch.evaluation import evaluate_files, is_predictions
    from xmc.evaluation.evaluate import evaluate as measure
    from xmc.search.retriever import Retriever

    k, metrics = asked
    if is_predictions(source):
        return evaluate_files(
            source, dataset, split, k=k, metrics=metrics, keep_predictions=keep_predictions, separator=separator
        )
    retriever = Retriever.load(source)
    return measure(retriever, dataset, split, exact, k=k, metrics=metrics, keep_predictions=keep_predictions)
