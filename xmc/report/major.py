"""Major mistakes by what texts, embeddings and judgements say: first predictions that are sorted as plainly wrong."""

from __future__ import annotations

import numpy as np

from xmc.evaluation.major_mistakes import MajorMistakes
from xmc.report.mistakes import Judge, judged_sample
from xmc.report.run import ReportedRun
from xmc.report.sorting import PLAINLY_WRONG
from xmc.report.task import Task

__all__ = ["plain_mistakes"]


def plain_mistakes(run: ReportedRun, task: Task) -> MajorMistakes:
    """The first predictions of a run that fit no milder kind of mistake, of the queries in which mistakes are counted."""
    mistakes = Judge(task, judged_sample(task)).mistakes(run)
    queries = [
        query
        for query, of_query in mistakes.items()
        if any(wrong.place == 1 and PLAINLY_WRONG in wrong.causes for wrong in of_query.wrong)
        and run.by_index.labels[query, 0] >= 0  # a label that the data set lacks has no uid there
    ]
    rows = np.array(queries, np.int64)
    return MajorMistakes.from_labels(task.dataset, task.queries.take(rows), run.by_index.labels[rows, 0])
