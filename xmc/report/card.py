"""What a model card says of a run beyond its own files: metrics and mistakes on a data set."""

from __future__ import annotations

from pathlib import Path

from xmc.data.dataset import Dataset
from xmc.metrics import KS, RECALL_KS, usual_measures
from xmc.report.mistakes import CAUSES, Judge, count_causes, judged_sample
from xmc.report.run import ReportedRun
from xmc.report.task import Task
from xmc.search.model_card import CardResults

__all__ = ["card_results"]

DEPTH = 100
"""Labels searched for each query, as in a report."""


def card_results(run: str | Path, dataset: Dataset, split: str = "test") -> CardResults:
    """Metrics of a run on a split, and the number of its mistakes by their likely cause, for `Retriever.push_to_hub`.

    Raises StoreError where there is no run, DataError where there is no such split, or the two share no label.
    """
    task = Task.from_split(dataset, split)
    reported = ReportedRun.measure(str(run), Path(run), task, DEPTH)
    usual = [measure.title for measure in usual_measures(KS, RECALL_KS)]
    metrics = {name: value for name, value in reported.metrics.values.items() if name in usual}
    judged = judged_sample(task)
    counts = count_causes(Judge(task, judged).mistakes(reported).values())
    causes = {"missed": "true labels that are missed", "wrong": "labels that are wrong", **CAUSES}
    mistakes = {words: counts[key] for key, words in causes.items() if key in counts}
    return CardResults(dataset.name, split, len(task.queries), metrics, mistakes, len(judged))
