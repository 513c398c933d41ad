"""The calls of a calibrated retriever: probabilities, label sets with a guarantee, decisions, p-values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from xmc.calibration.calibration import Calibration, require_calibration
from xmc.calibration.decisions import Decision, Policy
from xmc.calibration.powerset import Region
from xmc.calibration.risk import share
from xmc.calibration.sets import LabelSet, Scored, Wanted
from xmc.data.images.ragged import Images
from xmc.errors import InputError
from xmc.indexes.checks import require_count
from xmc.search.labels import LabelTable
from xmc.search.queries import Query

__all__ = ["CalibratedSearch"]

Embeddings = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class CalibratedSearch(ABC):
    """What a retriever can be asked once it is calibrated; a base of `Retriever`.

    calibration: None before `xmc.calibrate`.
    """

    calibration: Calibration | None = None

    @abstractmethod
    def fits_calibration(self) -> bool:
        """Whether labels and index are those that calibration is about; a warning is logged once where they are not."""

    @abstractmethod
    def _candidates(self, queries: Any, images: Images | None, count: int) -> tuple[LabelTable, Ids, Embeddings]:
        """The labels as they are now, and the ids and scores [n, count] of the best ones of each query."""

    def predict_proba(
        self, queries: Sequence[str | Query] | Embeddings, k: int = 10, *, images: Images | None = None
    ) -> tuple[npt.NDArray[np.object_], Embeddings]:
        """As `predict`, with the probability that a label is true in place of its score, float32 [n, k'].

        Labels come by score; probabilities also know how frequent a label is, and so may rise from left to right.
        Raises InputError as `predict`, for a retriever that is not calibrated (see xmc.calibrate), and for more labels than
        calibration looked at.
        """
        calibration = require_calibration(self.calibration)
        if k > calibration.candidates:
            raise InputError(f"k must be at most the {calibration.candidates} candidates of calibration, but is {k}.")
        labels, scored = self._scored(queries, images)
        ids = scored.ids[:, : require_count(k, "k")]
        return labels.uids_of(ids), scored.probabilities[:, :k].astype(np.float32)

    @overload
    def predict_sets(
        self,
        queries: Sequence[str | Query] | Embeddings,
        *,
        significance: float,
        limit: int = 100,
        images: Images | None = None,
    ) -> list[Region[str]]: ...

    @overload
    def predict_sets(
        self,
        queries: Sequence[str | Query] | Embeddings,
        *,
        recall: float | None = None,
        false_positive_share: float | None = None,
        images: Images | None = None,
    ) -> list[LabelSet]: ...

    def predict_sets(
        self,
        queries: Sequence[str | Query] | Embeddings,
        *,
        recall: float | None = None,
        false_positive_share: float | None = None,
        significance: float | None = None,
        limit: int = 100,
        images: Images | None = None,
    ) -> list[LabelSet] | list[Region[str]]:
        """Label sets with a guarantee, for queries that are exchangeable with those of calibration. Name one of:

        recall: a set of labels for each query that in the mean holds at least this share of a query's true labels, also of
            those that are not found at all. (1 - recall is the bound on the share of false negatives.)
        false_positive_share: a set of which in the mean at most this share is not true; empty sets have none.
        significance: all label sets that are not refused, of which one is the true set with a probability of at least
            1 - significance; `limit` are listed.

        See xmc.calibration.risk.Thresholds and xmc.calibration.powerset.Powerset. Raises InputError as `predict_proba`, for
        shares that are not in (0, 1), and for those that candidates or calibration queries are too few for.
        """
        calibration = require_calibration(self.calibration)
        wanted = Wanted(recall, false_positive_share, significance)
        threshold = None if significance is not None else wanted.threshold(calibration)
        labels, scored = self._scored(queries, images)
        if threshold is not None:
            return scored.sets(threshold, labels.uids_of)
        level = share(significance or 0.0, "significance")
        return scored.regions(calibration.powerset, level, require_count(limit, "limit"), labels.uids_of)

    def decide(
        self,
        queries: Sequence[str | Query] | Embeddings,
        automatic: float = 0.9,
        person: float = 0.1,
        *,
        images: Images | None = None,
    ) -> list[Decision]:
        """Labels to be taken without asking, of probability p >= automatic, and to ask a person about, p >= person.

        What to expect of it: `retriever.calibration.histogram.expect(Policy(automatic, person))`, with
        xmc.calibration.decisions.Policy. Raises InputError as `predict_proba`, and for thresholds that do not fit.
        """
        policy = Policy(automatic, person)
        labels, scored = self._scored(queries, images)
        return scored.decisions(policy, labels.uids_of)

    def p_values(
        self,
        queries: Sequence[str | Query] | Embeddings,
        label_sets: Sequence[Sequence[str]],
        *,
        images: Images | None = None,
    ) -> npt.NDArray[np.float64]:
        """The conformal p-value of one label set, given by uids, for each query, float64 [n]; see `predict_sets`.

        Raises InputError as `predict_proba`, for uids that are not there, and for more or fewer sets than queries.
        """
        calibration = require_calibration(self.calibration)
        labels, scored = self._scored(queries, images)
        if len(label_sets) != len(scored.ids):
            raise InputError(
                f"There are {len(label_sets)} label sets for {len(scored.ids)} queries; give one for each."
            )
        ids = [labels.ids[labels.known_rows(uids)].tolist() for uids in label_sets]
        return scored.p_values(calibration.powerset, ids)

    def _scored(self, queries: Sequence[str | Query] | Embeddings, images: Images | None) -> tuple[LabelTable, Scored]:
        """The candidates of queries, with their probabilities."""
        calibration = require_calibration(self.calibration)
        self.fits_calibration()
        labels, ids, scores = self._candidates(queries, images, calibration.candidates)
        return labels, Scored(ids, calibration.probabilities(calibration.candidates_of(ids, scores)))
