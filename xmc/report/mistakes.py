"""Which queries a run gets wrong, and the likely cause of each mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from xmc.report.run import PLACES, ReportedRun
from xmc.report.sorting import WRONG_CAUSES, Sorter
from xmc.report.task import Task

__all__ = [
    "CAUSES",
    "MISSED_CAUSES",
    "Judge",
    "Missed",
    "Mistakes",
    "Wrong",
    "choose_queries",
    "count_causes",
    "judged_sample",
    "quality",
]

MISSED_CAUSES = {
    "unseen": "unseen in training",
    "index-miss": "index miss",
    "encoder-miss": "encoder miss",
    "absent": "label not in the run",
}
CAUSES = MISSED_CAUSES | WRONG_CAUSES
"""What a missed true label, or a wrong prediction, may come from, by key. The page defines them."""
SEED = 0
JUDGED = 5_000
"""Largest number of queries in which causes of mistakes are counted; a random sample where there are more."""


@dataclass(frozen=True)
class Missed:
    """A true label that stands below the first m places of a query with m true labels.

    place: in the ranking of the run's index, from 1, None where it is not in it. exact_place: among all labels by exact score;
    None where the run does not have the label, or it was not asked for. causes: keys of CAUSES.
    """

    label: int
    place: int | None
    exact_place: int | None
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Wrong:
    """Another label in one of the first m places, at most PLACES, of a query with m true labels.

    place: from 1. causes: the one key of WRONG_CAUSES that it is sorted into, with a clause that says why.
    """

    place: int
    causes: dict[str, str]


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of one run in one query."""

    missed: tuple[Missed, ...]
    wrong: tuple[Wrong, ...]

    @property
    def causes(self) -> set[str]:
        """Keys of CAUSES."""
        return {cause for causes in self.all_causes for cause in causes}

    @property
    def all_causes(self) -> list[tuple[str, ...]]:
        """The causes of each mistake, missed labels first."""
        return [*(label.causes for label in self.missed), *(tuple(label.causes) for label in self.wrong)]


def quality(run: ReportedRun, task: Task) -> npt.NDArray[np.float64]:
    """nDCG at PLACES of each query, float64 [n] in [0, 1]; NaN for one without true labels."""
    discounts = 1 / np.log2(np.arange(PLACES) + 2)
    hits = task.contains(run.by_index.labels)[:, :PLACES]
    best = np.concatenate([[np.nan], np.cumsum(discounts)])[np.minimum(task.positives, PLACES)]
    return np.asarray(hits @ discounts[: hits.shape[1]] / best)


def choose_queries(
    qualities: npt.NDArray[np.float64], confidence: npt.NDArray[np.float64], count: int
) -> dict[int, bool]:
    """The queries that are shown, worst first: half of `count` the worst, the rest a random sample of the others.

    qualities: float64 [n], NaN for queries that cannot be judged. confidence: the score of the first prediction; of equally bad
    queries the one with the higher is worse. Returns, by query, whether it was chosen as one of the worst.
    """
    order = np.lexsort((-confidence, qualities))[: int(np.isfinite(qualities).sum())]
    worst, others = order[: (count + 1) // 2], order[(count + 1) // 2 :]
    sample = np.random.default_rng(SEED).permutation(others)[: count - len(worst)]
    chosen = {*worst.tolist(), *sample.tolist()}
    bad = set(worst.tolist())
    return {query: query in bad for query in order.tolist() if query in chosen}


def judged_sample(task: Task) -> list[int]:
    """The queries in which mistakes are counted, ascending: those with true labels, at most JUDGED of them at random."""
    judgeable = np.flatnonzero(task.positives)
    return [int(query) for query in np.sort(np.random.default_rng(SEED).permutation(judgeable)[:JUDGED])]


class Judge:
    """Finds the causes of mistakes in some queries of a task."""

    def __init__(self, task: Task, queries: Iterable[int]) -> None:
        self.task, self.queries = task, sorted(queries)
        self._sorter = Sorter(task, self.queries)

    def mistakes(self, run: ReportedRun, places: Iterable[int] = ()) -> dict[int, Mistakes]:
        """The mistakes of a run in each query. places: queries whose missed labels get their exact place, beyond k too."""
        missed = {query: self._missed(run, query) for query in self.queries}
        wanted = [(query, label.label) for query in places for label in missed[query] if "absent" not in label.causes]
        exact: dict[tuple[int, int], int] = {}
        if wanted:
            pairs = np.array(wanted, np.int64)
            exact = dict(zip(wanted, run.exact_places(pairs[:, 0], pairs[:, 1], self.task).tolist(), strict=True))
        return {
            query: Mistakes(
                tuple(
                    replace(label, exact_place=exact.get((query, label.label), label.exact_place))
                    for label in missed[query]
                ),
                tuple(self._wrong(run, query, missed[query])),
            )
            for query in self.queries
        }

    def _missed(self, run: ReportedRun, query: int) -> list[Missed]:
        labels, counts = self.task.true_labels(query), self.task.training_counts
        missed = []
        for label in labels.tolist():
            place = run.by_index.place(query, label)
            if place is not None and place <= len(labels):
                continue
            exact = run.exact.place(query, label)
            causes = ["unseen"] if counts is not None and not counts[label] else []
            if label not in run.run_rows:
                causes.append("absent")
            else:
                causes.append("index-miss" if place is None and exact is not None else "encoder-miss")
            missed.append(Missed(label, place, exact, tuple(causes)))
        return missed

    def _wrong(self, run: ReportedRun, query: int, missed: list[Missed]) -> Iterable[Wrong]:
        true = set(self.task.true_labels(query).tolist())
        first = run.by_index.labels[query, : min(len(true), PLACES)]
        rows = run.retriever.labels.rows_of_ids(run.by_index.ids[query, : len(first)])
        wrong = [place for place, label in enumerate(first.tolist()) if rows[place] >= 0 and label not in true]
        below = [label.label for label in missed]
        for place, text in zip(wrong, run.retriever.labels.texts_of(rows[wrong]), strict=True):
            kind, why = self._sorter.sort(run, query, int(first[place]), int(rows[place]), text, below)
            yield Wrong(place + 1, {kind: why})


def count_causes(mistakes: Iterable[Mistakes]) -> Counter[str]:
    """The number of mistakes of each cause, and of all missed and all wrong labels under "missed" and "wrong"."""
    counts: Counter[str] = Counter()
    for query_mistakes in mistakes:
        counts["missed"] += len(query_mistakes.missed)
        counts["wrong"] += len(query_mistakes.wrong)
        for causes in query_mistakes.all_causes:
            counts.update(causes)
    return counts
