"""What a search answers: labels with scores and, of calibrated runs, probabilities, label sets and decisions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.arrays import Embeddings, Ids, Mask
from xmc.cached import cached_property
from xmc.calibration.calibration import Calibration
from xmc.calibration.decisions import Policy
from xmc.calibration.powerset import Region
from xmc.calibration.sets import LabelSet, Wanted
from xmc.errors import InputError
from xmc.search.label_columns import values_at
from xmc.search.labels import LabelVersion
from xmc.search.reasons import Reasons
from xmc.search.stages import SearchState

__all__ = ["LISTED_SETS", "Answer", "AnswerParts"]

LISTED_SETS = 20
"""Number of label sets of a region that are listed by default; how many there are is said beside them."""
_STRINGS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float32())
_TYPES: dict[str, pa.DataType] = {
    "labels": _STRINGS,
    "scores": _NUMBERS,
    "texts": _STRINGS,
    "probabilities": _NUMBERS,
    "decisions": _STRINGS,
    "sets": pa.list_(_STRINGS),
    "set_p_values": _NUMBERS,
    "set_count": pa.float64(),
    "confidence": pa.float32(),
    "credibility": pa.float32(),
    "set": _STRINGS,
    "set_probabilities": _NUMBERS,
}
"""The columns of answers, in their order."""


@dataclass(frozen=True)
class AnswerParts:
    """What an answer holds beside labels and scores, and the columns that it becomes; n queries with k labels each.

    probabilities: "probabilities" list<float32>, that each of `labels` is true.
    decide: "decisions" list<string>, what a policy does with each of `labels`: "automatic", "person" or "none".
    sets, for a recall or a share of false positives: "set" list<string>, likeliest first, "set_probabilities" list<float32>.
    sets, for a significance: "sets" list<list<string>>, the most conforming first, `listed` at most, "set_p_values"
        list<float32>, "set_count" float64 (infinity beyond its range), "confidence" and "credibility" float32.

    See Retriever.predict_proba, decide and predict_sets, whose results these are.
    """

    probabilities: bool = False
    sets: Wanted | None = None
    decide: Policy | None = None
    listed: int = LISTED_SETS

    def __bool__(self) -> bool:
        """Whether any part is asked for."""
        return self.probabilities or self.sets is not None or self.decide is not None

    @property
    def significance(self) -> Fraction | None:
        """The significance of the regions that are asked for; None where none are."""
        return None if self.sets is None else self.sets.exact_significance

    def describe(self) -> dict[str, Any]:
        """The parts that are asked for, by name, as JSON values."""
        wanted: dict[str, Any] = {"probabilities": True} if self.probabilities else {}
        for name, given in (("sets", self.sets), ("decide", self.decide)):
            if given is not None:
                wanted[name] = {key: float(value) for key, value in asdict(given).items() if value is not None}
        return wanted

    def require(self, calibration: Calibration, k: int) -> None:
        """Raise InputError where a calibration cannot give the parts, for k labels of each query."""
        if k > calibration.candidates:
            raise InputError(
                f"k must be at most the {calibration.candidates:,} candidates that calibration looked at, but is {k:,}; ask "
                f"for fewer labels, or calibrate with more candidates."
            )
        if self.sets is not None:
            self.sets.require(calibration)

    def schema(self, label_texts: bool = False) -> pa.Schema:
        """Names and types of the columns of answers with these parts, see `Answer.columns`."""
        names = ["labels", "scores", *(["texts"] if label_texts else [])]
        names += ["probabilities"] if self.probabilities else []
        names += ["decisions"] if self.decide is not None else []
        if self.significance is not None:
            names += ["sets", "set_p_values", "set_count", "confidence", "credibility"]
        elif self.sets is not None:
            names += ["set", "set_probabilities"]
        return pa.schema([(name, _TYPES[name]) for name in names])


@dataclass(frozen=True)
class Answer:
    """The best labels of n queries, best first, by labels as they were at one moment.

    ids: int64 [n, k], -1 for none. scores: float32 [n, k], -inf for none.
    explanation: object [n, k], a tuple of Reasons for each label, or None; None where nothing was asked for, or said.
    Of a calibrated run, where asked for, else None:
    probabilities: float32 [n, k], 0 for none. decisions: object [n, k], "automatic", "person" or "none".
    sets: a label set of each query. regions: all label sets of each query that are not refused.
    """

    labels: LabelVersion
    ids: Ids
    scores: Embeddings
    explanation: Reasons | None = None
    probabilities: Embeddings | None = None
    decisions: npt.NDArray[np.object_] | None = None
    sets: Sequence[LabelSet] | None = None
    regions: Sequence[Region[str]] | None = None

    @classmethod
    def from_state(cls, state: SearchState) -> Answer:
        """What the last stage made."""
        return cls(state.labels, *state.ranked(), state.explanation)

    @property
    def version(self) -> int:
        """Which version of the labels answered, higher after each change; 0 where labels are searched elsewhere."""
        return self.labels.number

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Number of queries and labels, and what there is beside scores."""
        further = [entry.name for entry in fields(self) if entry.name not in ("labels", "ids", "scores")]
        beside = [name for name in further if getattr(self, name) is not None]
        with_further = f", with {', '.join(beside)}" if beside else ""
        queries = "1 query" if len(self) == 1 else f"{len(self):,} queries"
        return f"<{type(self).__name__}: {queries}, {self.ids.shape[1]:,} labels each{with_further}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with the labels that it names alone, without their index."""
        further = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "labels"}
        return _restored, (self.labels.only(self.ids), further)

    @cached_property
    def uids(self) -> npt.NDArray[np.object_]:
        """The uid of each label, object [n, k], None for none."""
        return self.labels.uids_of(self.ids)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the version, and under "answers" a dictionary for each query, by the names of columns."""
        answers = pa.table(self.columns()).to_pylist()
        if self.explanation is not None:
            for answer, reasons, ids in zip(answers, self.explanation, self.ids, strict=True):
                answer["explanation"] = [[one.to_dict() for one in said or ()] for said in reasons[ids >= 0]]
        return {"version": self.version, "answers": answers}

    def columns(self, label_texts: bool = False, good: Mask | None = None) -> dict[str, pa.Array]:
        """Arrow arrays by name, in the order and of the types of `AnswerParts.schema`.

        label_texts: with the text of each label. good: bool [rows], which of more rows have a query; the others are null.
        """
        good = np.ones(len(self), bool) if good is None else good
        index_rows = self.labels.index_rows_of_ids(self.ids)
        kept = index_rows >= 0
        offsets, missing = _offsets(good, kept.sum(axis=1))
        everything, label_rows = self.labels.everything, index_rows[kept]
        values = {"labels": values_at(everything["uid"], label_rows), "scores": pa.array(self.scores[kept])}
        if label_texts:
            values["texts"] = values_at(everything["text"], label_rows)
        if self.probabilities is not None:
            values["probabilities"] = pa.array(self.probabilities[kept])
        if self.decisions is not None:
            values["decisions"] = pa.array(self.decisions[kept], pa.string())
        columns = {name: pa.ListArray.from_arrays(offsets, array, mask=missing) for name, array in values.items()}
        for name, items in self._of_sets().items():
            columns[name] = _with_nulls(good, items, _TYPES[name])
        return columns

    def _of_sets(self) -> dict[str, Iterable[Any]]:
        """A value for each query, by the column's name."""
        if self.regions is not None:
            return {
                "sets": [region.sets for region in self.regions],
                "set_p_values": [region.p_values for region in self.regions],
                "set_count": [_float(region.count) for region in self.regions],
                "confidence": [region.confidence for region in self.regions],
                "credibility": [region.credibility for region in self.regions],
            }
        if self.sets is not None:
            return {
                "set": [label_set.labels for label_set in self.sets],
                "set_probabilities": [label_set.probabilities for label_set in self.sets],
            }
        return {}


def _restored(labels: LabelVersion, further: dict[str, Any]) -> Answer:
    return Answer(labels, **further)


def _offsets(good: Mask, lengths: npt.NDArray[np.int64]) -> tuple[pa.Array, pa.Array]:
    """Offsets of lists of all rows, where the good ones have these lengths, and which of the lists are null."""
    every = np.zeros(len(good), np.int64)
    every[good] = lengths
    return pa.array(np.concatenate([[0], np.cumsum(every)]).astype(np.int32)), pa.array(~good)


def _with_nulls(good: Mask, values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """The values of good rows, and null for the others."""
    remaining = iter(values)
    return pa.array([next(remaining) if is_good else None for is_good in good], kind)


def _float(count: int) -> float:
    return float(count) if count.bit_length() < 1024 else math.inf
