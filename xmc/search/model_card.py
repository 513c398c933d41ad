"""The model card of a run: what it is, how it is used, and what was measured, as the README.md of its repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xmc.search.run import Run
from xmc.search.run_metrics import TrainingRecord
from xmc.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

__all__ = ["CardResults", "model_card"]

TASK, LIBRARY = "text-classification", "xmc"
"""What the Hub files a model under."""


@dataclass(frozen=True)
class CardResults:
    """What was measured of a run, for its card; `xmc.report.card_results` makes it.

    dataset, split, queries: on what; queries: their number. metrics: by name, in percent. mistakes: number of mistakes by their
    likely cause, in words, as in a report. judged: number of queries in which these were counted.
    """

    dataset: str
    split: str
    queries: int
    metrics: Mapping[str, float]
    mistakes: Mapping[str, int] = field(default_factory=dict)
    judged: int = 0


def model_card(run: Run, repo: str, results: CardResults | None = None) -> str:
    """Markdown with a YAML header, in which the metrics stand for the Hub to read.

    repo: the name of the repository, owner/name.
    """
    from huggingface_hub import ModelCardData  # a search needs none of it

    data = ModelCardData(
        library_name=LIBRARY,
        tags=["extreme-multi-label-classification", "xmc"],
        pipeline_tag=TASK,
        model_name=repo.rpartition("/")[2],
        eval_results=_evaluations(run, results) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(_sections(run, repo, results)) + "\n"


def _evaluations(run: Run, results: CardResults | None) -> list[EvalResult]:
    """Measurements in the Hub's form."""
    from huggingface_hub import EvalResult

    measured = [] if results is None else [(results.dataset, results.split, results.metrics)]
    training, validation = run.metrics.training, run.metrics.validation
    if validation:
        named = run.config.validation.split
        measured.append((_trained_on(training), named or "held out of train", validation))
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=split,
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 2),
        )
        for dataset, split, metrics in measured
        for name, value in metrics.items()
    ]


def _sections(run: Run, repo: str, results: CardResults | None) -> Iterator[str]:
    yield f"# {repo.rpartition('/')[2]}"
    yield (
        f"A dual encoder that returns the few right labels of a text out of {len(run.labels):,}: made with "
        "xmc (the package xmc-retrieval), extreme multi-label classification as retrieval."
    )
    yield _table(("", ""), list(_facts(run)))
    yield (
        f'```python\nimport xmc\n\nretriever = xmc.Retriever.from_hub("{repo}")\n'
        'labels, scores = retriever.predict(["a text"], k=5)  # label uids, and cosine similarities\n```'
    )
    if results is not None:
        yield f"## Measured on {results.dataset}, split {results.split}"
        yield f"{results.queries:,} queries, in percent."
        yield _table(("metric", "value"), [(name, f"{value:.2f}") for name, value in results.metrics.items()])
    if run.metrics.validation:
        yield "## Measured in training, on queries it did not learn from"
        yield _table(("metric", "value"), [(name, f"{value:.2f}") for name, value in run.metrics.validation.items()])
    if results is not None and results.mistakes:
        yield "## Mistakes"
        yield (
            f"In {results.judged:,} queries: true labels that stand below the first m places of a query with m of them are "
            "missed, other labels there are wrong. A mistake may have several causes, or none of these."
        )
        yield _table(("", "number"), [(cause, f"{count:,}") for cause, count in results.mistakes.items()])
    yield "## Configuration"
    yield f"```yaml\n{run.config.to_yaml().strip()}\n```"


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    training = run.metrics.training
    yield "labels", f"{len(run.labels):,}"
    yield "encoder", run.config.encoder.kind
    yield "dimension", f"{run.model.dimension:,}"
    yield "calibrated", "no" if run.calibration is None else "yes: probabilities, label sets, decisions"
    if training is not None:
        yield "trained on", _trained_on(training)
        yield "training", f"{training.steps:,} steps, {training.seconds:,.0f} s, last loss {training.loss:.4f}"
        if training.interrupted:
            yield "interrupted", "training was stopped before its last step"
    yield "written by", f"xmc-retrieval {__version__}"


def _trained_on(training: TrainingRecord | None) -> str:
    return (training.dataset if training else "") or "unknown"


def _table(head: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
