"""Answers of a calibrated run: probabilities, label sets with a guarantee, decisions, p-values."""

from __future__ import annotations

import hashlib
import json
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.calibration.calibration import FIRST_FORMAT, Calibration
from xmc.calibration.decisions import Decision, Policy
from xmc.calibration.powerset import Region
from xmc.calibration.sets import LabelSet, Scored, Wanted
from xmc.data.images.ragged import Images
from xmc.errors import InputError
from xmc.indexes.checks import require_count
from xmc.indexes.versions import IndexVersion
from xmc.search.answers import Answer, AnswerParts
from xmc.search.labels import LabelVersion
from xmc.search.stages import PLAIN_STAGES
from xmc.storage.content_hash import ContentHash
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = [
    "CalibratedAnswers",
    "CalibrationFit",
    "fits",
    "labels_and_index",
    "require_stages",
    "stage_difference",
    "with_parts",
]

logger = logging.getLogger("xmc.search.calibrated")


@dataclass(frozen=True)
class CalibratedAnswers:
    """A calibration applied to what a search finds. `Retriever.predict_proba` and the methods beside it document the calls.

    search: queries, their images and a number of labels to an answer; called once it is known that the calibration can give
        what is asked for.
    All methods raise InputError for queries that `Retriever.predict` refuses.
    """

    calibration: Calibration
    search: Callable[[Any, Images | None, int], Answer]

    def answer(self, queries: Any, k: int, parts: AnswerParts, images: Images | None) -> Answer:
        """The k best labels of each query, with the parts of an answer that are asked for.

        Raises InputError for more labels than candidates, and for what cannot be guaranteed.
        """
        parts.require(self.calibration, require_count(k, "k"))
        return with_parts(self.search(queries, images, self.calibration.candidates), self.calibration, parts, k)

    def sets(
        self, queries: Any, wanted: Wanted, limit: int, images: Images | None
    ) -> list[LabelSet] | list[Region[str]]:
        """A label set of each query, or for a significance a region that lists at most `limit` sets.

        Raises InputError for what the candidates or the number of calibration queries cannot guarantee.
        """
        limit = require_count(limit, "limit")
        wanted.require(self.calibration)
        answer, scored = self._scored(queries, images)
        return scored.guaranteed(wanted, self.calibration, limit, answer.labels.uids_of)

    def decisions(self, queries: Any, policy: Policy, images: Images | None) -> list[Decision]:
        """Of each query the labels to take without asking, and those to ask a person about."""
        answer, scored = self._scored(queries, images)
        return scored.decisions(policy, answer.labels.uids_of)

    def p_values(
        self, queries: Any, label_sets: Sequence[Sequence[str]], images: Images | None
    ) -> npt.NDArray[np.float64]:
        """The conformal p-value of one label set for each query, float64 [n].

        Raises InputError for uids that are not there, and where the number of sets is not that of queries.
        """
        answer, scored = self._scored(queries, images)
        if len(label_sets) != len(answer):
            raise InputError(f"There are {len(label_sets)} label sets for {len(answer)} queries; give one for each.")
        labels = answer.labels
        ids = [labels.ids[labels.known_rows(uids)].tolist() for uids in label_sets]
        return scored.p_values(self.calibration.powerset, ids)

    def _scored(self, queries: Any, images: Images | None) -> tuple[Answer, Scored]:
        answer = self.search(queries, images, self.calibration.candidates)
        return answer, _scored(answer, self.calibration)


def with_parts(answer: Answer, calibration: Calibration, parts: AnswerParts, k: int) -> Answer:
    """The k best labels of an answer that holds all candidates of a calibration, with the parts that are asked for."""
    scored = _scored(answer, calibration)
    probabilities = scored.probabilities[:, :k]
    found: Any = None
    if parts.sets is not None:
        found = scored.guaranteed(parts.sets, calibration, parts.listed, answer.labels.uids_of)
    return replace(
        answer,
        ids=answer.ids[:, :k],
        scores=answer.scores[:, :k],
        explanation=None if answer.explanation is None else answer.explanation[:, :k],
        probabilities=probabilities.astype(np.float32) if parts.probabilities else None,
        decisions=None if parts.decide is None else parts.decide.decisions(probabilities),
        sets=found if parts.significance is None else None,
        regions=None if parts.significance is None else found,
    )


def _scored(answer: Answer, calibration: Calibration) -> Scored:
    """The candidates of an answer, with their probabilities."""
    return Scored(answer.ids, calibration.probabilities(calibration.candidates_of(answer.ids, answer.scores)))


class CalibrationFit:
    """Whether labels and index are those that a calibration was made for, remembered until they change."""

    def __init__(self) -> None:
        self._known: tuple[Calibration, weakref.ref[LabelVersion], bool] | None = None

    def check(self, calibration: Calibration, labels: LabelVersion) -> bool:
        """Compare them as they are now, and log a warning when they come to differ."""
        known = self._known
        if known is not None and known[0] is not calibration:
            known = None
        if known is not None and known[1]() is labels:
            return known[2]
        is_fit = fits(calibration, labels)
        # in one step: other threads see all of a comparison or nothing of it
        self._known = calibration, weakref.ref(labels), is_fit
        if not is_fit and (known is None or known[2]):
            logger.warning("labels or index were changed after calibration; what it guarantees is for those before")
        return is_fit


def fits(calibration: Calibration, labels: LabelVersion) -> bool:
    """Whether labels and index are those that a calibration was made for."""
    expected = calibration.source.labels
    if expected.startswith(FIRST_FORMAT):
        return expected == FIRST_FORMAT + _labels_and_index_of_first_format(labels)
    return expected == labels_and_index(labels)


def labels_and_index(labels: LabelVersion) -> str:
    """A fingerprint of the labels, with their texts and order, of the index's design, and of remembered queries, if any.

    Labels from outside of training count with their vectors, which their texts alone do not say.
    """
    content = ContentHash()
    content.update(labels.table.select(["id", "text"]))
    parts: list[Any] = [_design(labels.index), content.hexdigest()]
    trained = None if labels.trained is None else labels.trained[labels.living]
    if trained is not None and not trained.all():
        vectors = labels.index.blocks.take(labels.living[~trained])
        parts.append(hashlib.sha256(vectors.tobytes()).hexdigest())
    if labels.memory is not None:
        parts.append(labels.memory.fingerprint)
    return fingerprint_of_json(parts)


def stage_difference(calibration: Calibration, fingerprints: Mapping[str, str]) -> str:
    """How the stages of a search differ from those that a calibration was made for, in words; "" where they do not.

    fingerprints: of the search's stages by name, in their order. A calibration of the first format names no stages: it was
    made when there were no others than those of every search.
    """
    made_for: Mapping[str, str] | None = calibration.source.stages
    if made_for is None:
        made_for = {name: fingerprint for name, fingerprint in fingerprints.items() if name in PLAIN_STAGES}
    for name in made_for:
        if name not in fingerprints:
            return f"with the stage {name!r}, which the search lacks"
    for name, fingerprint in fingerprints.items():
        if name not in made_for:
            return f"without the stage {name!r}, which the search has"
        if fingerprint != made_for[name]:
            return f"for another stage {name!r} than the search has"
    return "" if list(made_for) == list(fingerprints) else "for the same stages in another order"


def require_stages(calibration: Calibration, fingerprints: Mapping[str, str]) -> None:
    """Raise InputError where a calibration was made for other stages; it names the stage that differs."""
    difference = stage_difference(calibration, fingerprints)
    if difference:
        raise InputError(
            f"The calibration was made {difference}: `xmc calibrate` again, or search by the stages it was made for "
            f"({', '.join(calibration.source.stages or PLAIN_STAGES)})."
        )


def _design(index: IndexVersion) -> list[Any]:
    design = index.design
    return [design.kind, "" if design.name == design.kind else design.name, design.parameters, index.rescore]


def _labels_and_index_of_first_format(labels: LabelVersion) -> str:
    """What calibrations of format 1 hold in place of `labels_and_index`."""
    digest = hashlib.sha256(json.dumps(_design(labels.index)).encode() + labels.ids.tobytes())
    for text in labels.texts.to_pylist():
        digest.update((text or "").encode() + b"\0")
    return digest.hexdigest()
