"""What a wrong prediction is: each is sorted into exactly one kind, the first that it fits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

import numpy as np

from xmc.cached import cached_property
from xmc.report.hierarchy import Hierarchy
from xmc.report.run import ReportedRun
from xmc.report.task import Task
from xmc.report.texts import SHORTEST, canonical, contains, nearly_equal, words

__all__ = ["PLAINLY_WRONG", "RARE", "SAME", "WRONG_CAUSES", "Sorter"]

PLAINLY_WRONG = "plainly-wrong"
WRONG_CAUSES = {
    "near-duplicate": "same meaning",
    "broader": "broader label",
    "narrower": "narrower label",
    "missing-positive": "missing from the truth",
    "rare": "rare label",
    PLAINLY_WRONG: "wrong",
}
"""Kinds of wrong predictions by key, in the order in which they are tried."""
SAME = 0.95
"""Two labels mean the same to a run where the cosine of their embeddings is as much."""
RARE = 5
"""A label with at most as many training queries is rare."""


class Sorter:
    """Sorts the wrong predictions of some queries of a task."""

    def __init__(self, task: Task, queries: Iterable[int]) -> None:
        self.task = task
        self._words = {query: words(task.texts[query]) for query in queries}
        self._canonical: dict[str, str] = {}

    def sort(
        self, run: ReportedRun, query: int, label: int, run_row: int, text: str, missed: Collection[int]
    ) -> tuple[str, str]:
        """The kind of a wrong prediction, a key of WRONG_CAUSES, and a clause that says why; "" for plainly wrong.

        label: row of the data set, below 0 for a label that it lacks. run_row: row of the run. text: of the label. missed: true
        labels of the query that stand below its first places.
        """
        true = self.task.true_labels(query).tolist()
        return (
            self._same_meaning(run, run_row, text, true)
            or self._broader_or_narrower(label, text, true)
            or self._missing(query, label, text)
            or self._rare(missed)
            or (PLAINLY_WRONG, "")
        )

    def _same_meaning(self, run: ReportedRun, run_row: int, text: str, true: list[int]) -> tuple[str, str] | None:
        name = self._canonical_of(text)
        for true_label in true:
            true_name = self.task.label_texts[true_label]
            if nearly_equal(name, self._canonical_of(true_name)):
                return "near-duplicate", f"almost the text of the true label “{true_name}”"
        vectors = run.retriever.embeddings
        known = [label for label in true if label in run.run_rows]
        if not known:
            return None
        others = vectors[[run.run_rows[label] for label in known]]
        norms = np.linalg.norm(others, axis=1) * np.linalg.norm(vectors[run_row])
        cosines = others @ vectors[run_row] / np.maximum(norms, np.finfo(np.float32).tiny)
        best = int(cosines.argmax())
        if cosines[best] < SAME:
            return None
        true_name = self.task.label_texts[known[best]]
        return (
            "near-duplicate",
            f"its embedding is nearly that of the true label “{true_name}” (cosine {cosines[best]:.2f})",
        )

    def _broader_or_narrower(self, label: int, text: str, true: list[int]) -> tuple[str, str] | None:
        name = _set_of_words(text)
        for true_label in true:
            true_text = self.task.label_texts[true_label]
            true_name = _set_of_words(true_text)
            if label in self._hierarchy.above(true_label) or (name and name < true_name):
                return "broader", f"broader than the true label “{true_text}”"
            if true_label in self._hierarchy.above(label) or (true_name and true_name < name):
                return "narrower", f"narrower than the true label “{true_text}”"
        return None

    def _missing(self, query: int, label: int, text: str) -> tuple[str, str] | None:
        """Why a label that nobody rejected may be a positive that the data set lacks."""
        judgements = self.task.judgements
        if label >= 0 and judgements is not None:
            for name, matrix in (("correct", judgements.correct), ("unclear", judgements.unclear)):
                if label in matrix[query].indices:
                    return "missing-positive", f"it is judged {name}"
            if label in judgements.wrong[query].indices:
                return None
        if label >= 0 and label in self.task.targets.rejected[query].indices:
            return None
        if contains(self._words[query], words(text)):
            return "missing-positive", "its text stands in the query"
        if self.task.training is not None and label >= 0:
            for row in self._twins.get(frozenset(self._words[query]), ()):
                if label in self.task.training.positives[row].indices:
                    uid = self.task.training.uids[row].as_py()
                    return "missing-positive", f"the training query {uid} has the same words, and this label"
        return None

    def _rare(self, missed: Collection[int]) -> tuple[str, str] | None:
        counts = self.task.training_counts
        if counts is None or not missed or max(counts[label] for label in missed) > RARE:
            return None
        return "rare", f"the true labels that stand below have at most {RARE} training queries each"

    @cached_property
    def _hierarchy(self) -> Hierarchy:
        return Hierarchy.from_labels(self.task.dataset.labels)

    @cached_property
    def _twins(self) -> dict[frozenset[str], list[int]]:
        """Training queries with the same words as a query that is judged."""
        twins: dict[frozenset[str], list[int]] = {frozenset(query): [] for query in self._words.values() if query}
        if self.task.training is not None:
            for row, text in enumerate(self.task.training.texts.to_pylist()):
                rows = twins.get(frozenset(words(text or "")))
                if rows is not None:
                    rows.append(row)
        return twins

    def _canonical_of(self, text: str) -> str:
        if text not in self._canonical:
            self._canonical[text] = canonical(text)
        return self._canonical[text]


@lru_cache(maxsize=1 << 16)
def _set_of_words(text: str) -> frozenset[str]:
    """The words of a label's text; none where they have too few letters to say something."""
    found = words(text)
    return frozenset(found) if sum(map(len, found)) >= SHORTEST else frozenset()
