"""What a calibrated run says of each row beside labels and scores, as columns of a job's output."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.batch.rows import Rows
from xmc.calibration.calibration import Calibration, require_calibration
from xmc.calibration.decisions import Policy
from xmc.calibration.risk import share
from xmc.calibration.sets import Scored, Wanted
from xmc.errors import InputError
from xmc.search.labels import LabelTable
from xmc.search.run_directory import RunDirectory

__all__ = ["LISTED_SETS", "CalibratedColumns", "read_calibration"]

LISTED_SETS = 20
"""Of a region of label sets no more are written; how many there are is written beside them."""
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
T = TypeVar("T")


@dataclass(frozen=True)
class CalibratedColumns:
    """Which columns are wanted, and how they are made; n rows, K candidates, of which the first k are in `labels`.

    probabilities: "probabilities" list<float32>, that each of `labels` is true.
    decide: "decisions" list<string>, what a policy does with each of `labels`: "automatic", "person" or "none".
    sets, for a recall or a share of false positives: "set" list<string>, likeliest first, "set_probabilities" list<float32>.
    sets, for a significance: "sets" list<list<string>>, the most conforming first, LISTED_SETS at most, "set_p_values"
        list<float32>, "set_count" float64 (infinity beyond its range), "confidence" and "credibility" float32.

    See Retriever.predict_proba, decide and predict_sets, whose results these are.
    """

    probabilities: bool = False
    sets: Wanted | None = None
    decide: Policy | None = None

    @classmethod
    def of(cls, probabilities: bool, sets: Wanted | str | None, decide: Policy | str | None) -> CalibratedColumns:
        """sets, decide: also as on the command line. InputError for what cannot be read, and values that do not fit."""
        if isinstance(sets, str):
            form = "one of recall=SHARE, false-positive-share=SHARE and significance=SHARE, such as recall=0.9"
            sets = _parsed(Wanted, "sets", sets, form)
        if isinstance(decide, str):
            decide = _parsed(Policy, "decide", decide, "automatic=SHARE,person=SHARE, such as automatic=0.9,person=0.1")
        return cls(probabilities, sets, decide)

    def __bool__(self) -> bool:
        """Whether any column is wanted."""
        return self.probabilities or self.sets is not None or self.decide is not None

    def describe(self) -> dict[str, Any]:
        """What is wanted, and nothing else, as JSON values."""
        wanted: dict[str, Any] = {"probabilities": True} if self.probabilities else {}
        for name, given in (("sets", self.sets), ("decide", self.decide)):
            if given is not None:
                wanted[name] = {key: float(value) for key, value in asdict(given).items() if value is not None}
        return wanted

    def require(self, calibration: Calibration, k: int) -> None:
        """Raise InputError where a calibration cannot give the columns, for lists of k labels."""
        if k > calibration.candidates:
            raise InputError(
                f"k must be at most the {calibration.candidates:,} candidates that calibration looked at, but is {k:,}; ask "
                f"for fewer labels, or calibrate with more candidates."
            )
        if self._significance is not None:
            calibration.powerset.threshold(self._significance)
        elif self.sets is not None:
            self.sets.threshold(calibration)

    @property
    def fields(self) -> list[tuple[str, pa.DataType]]:
        """Names and types of the columns."""
        strings, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
        wanted = [("probabilities", numbers)] if self.probabilities else []
        wanted += [("decisions", strings)] if self.decide is not None else []
        if self._significance is not None:
            wanted += [("sets", pa.list_(strings)), ("set_p_values", numbers), ("set_count", pa.float64())]
            wanted += [("confidence", pa.float32()), ("credibility", pa.float32())]
        elif self.sets is not None:
            wanted += [("set", strings), ("set_probabilities", numbers)]
        return wanted

    def arrays(self, calibration: Calibration, labels: LabelTable, rows: Rows, found: Found, k: int) -> list[pa.Array]:
        """The columns, null for bad rows. found: ids and scores [n, K] of all candidates of the good ones."""
        ids, scores = found
        scored = Scored(ids, calibration.probabilities(calibration.candidates_of(ids, scores)))
        columns: list[Iterable[Any]] = []
        probabilities = [row[own] for row, own in zip(scored.probabilities[:, :k], ids[:, :k] >= 0, strict=True)]
        if self.probabilities:
            columns.append(row.astype(np.float32) for row in probabilities)
        if self.decide is not None:
            columns.append(map(self.decide.decisions, probabilities))
        if self._significance is not None:
            regions = scored.regions(calibration.powerset, self._significance, LISTED_SETS, labels.uids_of)
            columns += [[one.sets for one in regions], [one.p_values for one in regions]]
            columns += [[_float(one.count) for one in regions]]
            columns += [[one.confidence for one in regions], [one.credibility for one in regions]]
        elif self.sets is not None:
            sets = scored.sets(self.sets.threshold(calibration), labels.uids_of)
            columns += [[one.labels for one in sets], [one.probabilities for one in sets]]
        return [_with_nulls(rows, values, kind) for values, (_, kind) in zip(columns, self.fields, strict=True)]

    @property
    def _significance(self) -> Fraction | None:
        asked = None if self.sets is None else self.sets.significance
        return None if asked is None else share(asked, "significance")


def read_calibration(run: str | Path) -> Calibration:
    """That of a run, without the rest of it. StoreError where there is no run, InputError for one that is not calibrated."""
    return require_calibration(RunDirectory(run).read_calibration(), f"The run {run}")


def _parsed(kind: type[T], option: str, text: str, form: str) -> T:
    """NAME=NUMBER, perhaps several with commas, as a dataclass of numbers by these names."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    found: dict[str, float] = {}
    for one in text.split(","):
        name, _, value = (part.strip() for part in one.partition("="))
        name = name.replace("-", "_")
        try:
            if name not in names or name in found:
                raise ValueError(name)
            found[name] = float(value)
        except ValueError as error:
            raise InputError(f"{option} must be {form}, but is {text!r}.") from error
    return kind(**found)


def _float(count: int) -> float:
    return float(count) if count.bit_length() < 1024 else math.inf


def _with_nulls(rows: Rows, values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """The values of good rows, and null for the others."""
    own = iter(values)
    return pa.array([next(own) if good else None for good in rows.good], kind)
