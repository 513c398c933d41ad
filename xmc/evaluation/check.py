"""`xmc calibrate --check`: a calibrated retriever against newer queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xmc.calibration.drift import Check, Drift, check_coverage, check_recall, check_scores
from xmc.data.dataset import Dataset
from xmc.errors import DataError
from xmc.evaluation.gather import gather, true_ids
from xmc.evaluation.held_aside import LEAST_QUERIES
from xmc.evaluation.labelled import LabelledPart
from xmc.search.retriever import Retriever

__all__ = ["Checked", "check", "check_texts"]


@dataclass(frozen=True)
class Checked:
    """What newer queries say of a calibration.

    checks: one of each guarantee; none where the queries have no labels. itself: these are the queries of calibration.
    """

    checks: tuple[Check, ...]
    drift: Drift
    itself: bool = False

    @property
    def holds(self) -> bool:
        """Whether all guarantees hold and queries have not moved."""
        return all(check.holds for check in self.checks) and not self.drift.moved

    def sentences(self) -> list[str]:
        """The result in words, the verdict first."""
        broken = [check.name for check in self.checks if not check.holds]
        if broken:
            verdict = f"What calibration guarantees no longer holds ({', '.join(broken)}); calibrate on newer queries."
        elif self.drift.moved:
            verdict = "Queries have moved away from those of calibration; what it guarantees may not hold for them."
        elif self.checks:
            verdict = "What calibration guarantees holds on these queries."
        else:
            verdict = "These queries look like those of calibration; without labels no more can be said."
        sentences = [verdict, *(check.sentence() for check in self.checks), self.drift.sentence()]
        if self.itself:
            sentences.append("These are the queries that the run was calibrated on, which say nothing of newer ones.")
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        checks = [{**asdict(check), "holds": check.holds} for check in self.checks]
        return {"holds": self.holds, "checks": checks, "drift": self.drift.to_dict(), "sentences": self.sentences()}


def check(retriever: Retriever, dataset: Dataset, split: str = "test") -> Checked:
    """Test on a split's labelled queries whether guarantees hold, and whether queries have moved.

    Raises InputError as Retriever.require_calibration, DataError for fewer than 100 queries, or none with a true label.
    """
    retriever = retriever.at_one_version()
    calibration = retriever.require_calibration()
    part = LabelledPart.from_split(dataset.split(split), dataset.targets(split))
    queries, targets = part.queries, part.targets
    _require_enough(len(queries))
    judged = gather(
        retriever, dataset, queries, targets, calibration.candidates, calibration.groups, calibration.source.seed
    )
    if not judged.positives.any():
        raise DataError(
            f"The split {split!r} of {dataset.name!r} has no query with a true label; check its texts alone, as a Parquet file."
        )
    probabilities = calibration.probabilities(judged.candidates)
    ids_of_queries: list[list[int]] = [[]] * len(judged)
    if calibration.powerset.label_sets is not None:
        ids_of_queries = true_ids(retriever, dataset, targets)
    checks = [
        *check_recall(calibration, probabilities, judged),
        *check_coverage(calibration, probabilities, judged, ids_of_queries),
    ]
    source = calibration.source
    itself = (source.fingerprint, source.split) == (dataset.fingerprint, split)
    return Checked(tuple(checks), check_scores(calibration, judged.candidates), itself)


def check_texts(retriever: Retriever, texts: Sequence[str]) -> Checked:
    """Test whether queries without labels have moved.

    Raises InputError as Retriever.require_calibration, DataError for fewer than 100 texts.
    """
    retriever = retriever.at_one_version()
    calibration = retriever.require_calibration()
    _require_enough(len(texts))
    ids, scores = retriever.search(list(texts), 1, allow_empty=True)
    return Checked((), check_scores(calibration, calibration.candidates_of(ids, np.asarray(scores, np.float32))))


def _require_enough(queries: int) -> None:
    if queries < LEAST_QUERIES:
        raise DataError(f"There are {queries:,} queries to check by; at least {LEAST_QUERIES} are needed.")
