"""Why a run gave the labels that the page shows, in a few words."""

from __future__ import annotations

from xmc.evaluation.judging import most_excluded
from xmc.report.run import PLACES, ReportedRun
from xmc.report.task import Task
from xmc.search.reasons import in_words

__all__ = ["reasons_of_predictions"]

SHOWN = 4
"""Number of reasons that are shown for a label."""


def reasons_of_predictions(run: ReportedRun, task: Task, queries: list[int]) -> dict[int, dict[int, str]]:
    """For each query what speaks for its first predictions, by label id; nothing of queries with images, or without text."""
    if task.queries.images is not None:
        return {}
    asked = [query for query in queries if task.texts[query].strip()]
    texts = [task.texts[query] for query in asked]
    answer = run.retriever.answer(texts, PLACES + most_excluded(task.targets), explain=True)
    if answer.explanation is None:
        return {}
    return {
        query: {
            int(label): in_words(answer.explanation[row, place][:SHOWN])
            for place, label in enumerate(answer.ids[row].tolist())
            if answer.explanation[row, place]
        }
        for row, query in enumerate(asked)
    }
