"""Answers of a calibrated run: probabilities, label sets with a guarantee, decisions, p-values."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Ids
from xmc.calibration.calibration import Calibration
from xmc.calibration.decisions import Decision, Policy
from xmc.calibration.powerset import Region
from xmc.calibration.risk import share
from xmc.calibration.sets import LabelSet, Scored, Wanted
from xmc.data.images.ragged import Images
from xmc.errors import InputError
from xmc.indexes.checks import require_count
from xmc.indexes.label_index import LabelIndex
from xmc.search.labels import LabelTable
from xmc.storage.fingerprints import ContentHash, fingerprint_of_json

__all__ = ["CalibratedAnswers", "CalibrationFit", "CandidateSearch", "labels_and_index"]

logger = logging.getLogger("xmc.search.calibrated")


class CandidateSearch(Protocol):
    """What calibrated answers need of a retriever."""

    def fits_calibration(self) -> bool:
        """Whether labels and index are those that the calibration was made for; a warning is logged once where not."""

    def candidates(self, queries: Any, images: Images | None, count: int) -> tuple[LabelTable, Ids, Embeddings]:
        """The labels as they are now, and the ids and scores [n, count] of the best ones of each query."""


@dataclass(frozen=True)
class CalibratedAnswers:
    """A calibration applied to what a search finds. `Retriever.predict_proba` and the methods beside it document the calls.

    All methods raise InputError for queries that `Retriever.predict` refuses.
    """

    calibration: Calibration
    search: CandidateSearch

    def probabilities(
        self, queries: Any, k: int, images: Images | None
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float32]]:
        """Label uids [n, k'] by score, and probabilities float32 [n, k']. InputError for more labels than candidates."""
        candidates = self.calibration.candidates
        if k > candidates:
            raise InputError(f"k must be at most the {candidates} candidates of calibration, but is {k}.")
        labels, scored = self._scored(queries, images)
        ids = scored.ids[:, : require_count(k, "k")]
        return labels.uids_of(ids), scored.probabilities[:, :k].astype(np.float32)

    def sets(
        self, queries: Any, wanted: Wanted, limit: int, images: Images | None
    ) -> list[LabelSet] | list[Region[str]]:
        """Of each query a label set, or for a significance a region of which at most `limit` sets are listed.

        Raises InputError for what the candidates or the number of calibration queries cannot guarantee.
        """
        if wanted.significance is None:
            threshold = wanted.threshold(self.calibration)
            labels, scored = self._scored(queries, images)
            return scored.sets(threshold, labels.uids_of)
        labels, scored = self._scored(queries, images)
        significance = share(wanted.significance, "significance")
        return scored.regions(self.calibration.powerset, significance, require_count(limit, "limit"), labels.uids_of)

    def decisions(self, queries: Any, policy: Policy, images: Images | None) -> list[Decision]:
        """Of each query the labels to take without asking, and those to ask a person about."""
        labels, scored = self._scored(queries, images)
        return scored.decisions(policy, labels.uids_of)

    def p_values(
        self, queries: Any, label_sets: Sequence[Sequence[str]], images: Images | None
    ) -> npt.NDArray[np.float64]:
        """The conformal p-value of one label set for each query, float64 [n].

        Raises InputError for uids that are not there, and where the number of sets is not that of queries.
        """
        labels, scored = self._scored(queries, images)
        if len(label_sets) != len(scored.ids):
            raise InputError(
                f"There are {len(label_sets)} label sets for {len(scored.ids)} queries; give one for each."
            )
        ids = [labels.ids[labels.known_rows(uids)].tolist() for uids in label_sets]
        return scored.p_values(self.calibration.powerset, ids)

    def _scored(self, queries: Any, images: Images | None) -> tuple[LabelTable, Scored]:
        """The candidates of queries, with their probabilities."""
        self.search.fits_calibration()
        labels, ids, scores = self.search.candidates(queries, images, self.calibration.candidates)
        return labels, Scored(ids, self.calibration.probabilities(self.calibration.candidates_of(ids, scores)))


class CalibrationFit:
    """Whether labels and index are those that a calibration was made for, remembered until they change."""

    def __init__(self) -> None:
        self._known: tuple[Calibration, LabelTable, LabelIndex] | None = None
        self._fits = True

    def check(self, calibration: Calibration, labels: LabelTable, index: LabelIndex) -> bool:
        """Compare, and log a warning the first time that they differ."""
        if self._known is not None and self._known[0] is calibration:
            same = self._known[1] is labels and self._known[2] is index
            if same or not self._fits:  # changes are not taken back
                return self._fits
        self._known = calibration, labels, index
        self._fits = labels_and_index(labels, index) == calibration.source.labels
        if not self._fits:
            logger.warning("labels or index were changed after calibration; what it guarantees is for those before")
        return self._fits


def labels_and_index(labels: LabelTable, index: LabelIndex) -> str:
    """A fingerprint of the labels, with their texts and order, and of the index's design."""
    design = index.design
    named = [design.kind, "" if design.name == design.kind else design.name, design.parameters, index.rescore]
    content = ContentHash()
    content.update(labels.table.select(["id", "text"]))
    return fingerprint_of_json([named, content.hexdigest()])
