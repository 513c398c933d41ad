"""All that calibration knows of a run, and its files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from xmc.calibration.candidates import FREQUENCY_GROUPS, Candidates
from xmc.calibration.decisions import STEPS, Histogram
from xmc.calibration.dependency import LabelSets
from xmc.calibration.powerset import Powerset
from xmc.calibration.probabilities import BANDS, Probabilities
from xmc.calibration.reliability import Reliability
from xmc.calibration.risk import LEVELS, SetSizes, Thresholds
from xmc.errors import InputError, StoreError, XMCError, boundary
from xmc.storage.expected_tensors import Expected, numpy_tensors
from xmc.storage.tensors import described_tensors

__all__ = ["Calibration", "CalibrationSource", "require_calibration"]

logger = logging.getLogger("xmc.calibration")

VALUES, ARRAYS = "calibration.json", "calibration.safetensors"
FORMAT = 2
FIRST_FORMAT = "1:"
"""The fingerprint of labels and index of a calibration of format 1 begins with this: it was made in another way."""


@dataclass(frozen=True)
class CalibrationSource:
    """What a calibration was made from.

    dataset, fingerprint, split: the data. queries: number of queries. fitted: number of those that the probabilities were
    fitted on; the others gave everything that is guaranteed. without_positives: number of queries without a true label.
    recall: the share of true labels among the candidates. seed: which queries are which. labels: fingerprint of the labels and
    the index. stages: fingerprints of the search's stages by name, in their order; None for a calibration of format 1.
    """

    dataset: str
    fingerprint: str
    split: str
    queries: int
    fitted: int
    without_positives: int
    recall: float
    seed: int
    labels: str
    stages: dict[str, str] | None = None


@dataclass(frozen=True)
class Calibration:
    """Probabilities, and what sets and decisions are chosen by. Made by `xmc.calibrate`.

    candidates: K, the number of labels that are looked at for each query. groups: int8 [ids], the frequency group of each label
    id; later ids are of the first group. brier: Brier scores of all methods tried. reliability: diagrams by rank; by_frequency:
    by label frequency. sizes: what sets of some recalls gave on calibration queries. scores: the best score of each
    calibration query, float32 ascending, for `check`.
    """

    source: CalibrationSource
    candidates: int
    groups: npt.NDArray[np.int8]
    probabilities: Probabilities
    brier: dict[str, float]
    reliability: tuple[Reliability, ...]
    by_frequency: tuple[Reliability, ...]
    misses: Thresholds
    false_positives: Thresholds
    powerset: Powerset
    histogram: Histogram
    scores: npt.NDArray[np.float32]
    sizes: dict[str, SetSizes] = field(default_factory=dict)

    def __repr__(self) -> str:
        """What it was made from, and the number of candidates."""
        source = self.source
        made_from = f"{source.queries:,} queries of {source.dataset!r}, split {source.split!r}"
        return f"<{type(self).__name__}: {self.candidates:,} candidates, from {made_from}>"

    def candidates_of(self, ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> Candidates:
        """What a search for `candidates` labels gave, ids [n, K] with -1 for none, as candidates."""
        return Candidates.from_search(ids, scores, self.groups)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        return {
            "format": FORMAT,
            "source": asdict(self.source),
            "candidates": self.candidates,
            "method": self.probabilities.method,
            "temperature": self.probabilities.temperature,
            "brier": self.brier,
            "reliability": [diagram.to_dict() for diagram in self.reliability],
            "by_frequency": [diagram.to_dict() for diagram in self.by_frequency],
            "queries": {"misses": self.misses.queries, "false_positives": self.false_positives.queries},
            "powerset": {"norm": self.powerset.norm, "dependency": self.powerset.dependency},
            "histogram": {"queries": self.histogram.queries, "positives": self.histogram.positives},
            "sizes": {level: asdict(sizes) for level, sizes in self.sizes.items()},
        }

    def save(self, directory: Path) -> None:
        """Write the files into a new directory."""
        directory.mkdir()
        (directory / VALUES).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        arrays: dict[str, npt.NDArray[Any]] = {
            "groups": self.groups,
            "intercepts": self.probabilities.intercepts,
            "weights": self.probabilities.weights,
            "misses": self.misses.values,
            "false_positives": self.false_positives.values,
            "powerset": self.powerset.scores,
            "histogram.candidates": self.histogram.candidates,
            "histogram.true": self.histogram.true,
            "scores": self.scores,
        }
        arrays |= {f"knots.{band}": knots for band, knots in enumerate(self.probabilities.knots)}
        if self.powerset.label_sets is not None:
            arrays |= {"sets.offsets": self.powerset.label_sets.offsets, "sets.ids": self.powerset.label_sets.ids}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, directory / ARRAYS)

    @classmethod
    def load(cls, directory: Path) -> Calibration | None:
        """Read what `save` wrote; None, and a warning, where the files are of a version that this one does not read."""
        try:
            with boundary(StoreError, f"{directory} cannot be read"):
                return cls._read(directory)
        except XMCError as error:
            logger.warning("%s is of another version of xmc, or damaged (%s); calibrate again", directory, error)
            return None

    @classmethod
    def _read(cls, directory: Path) -> Calibration:
        values = json.loads((directory / VALUES).read_text(encoding="utf-8"))
        source = dict(values["source"])
        if values["format"] == 1:
            source["labels"] = FIRST_FORMAT + source["labels"]
        elif values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        arrays = numpy_tensors(directory / ARRAYS, _expected(directory / ARRAYS))
        candidates, temperature = int(values["candidates"]), float(values["temperature"])
        norm, dependency = (float(values["powerset"][name]) for name in ("norm", "dependency"))
        if not (0 < candidates < 2**31 and 0 < temperature < np.inf and 0 < norm < np.inf and 0 <= dependency < np.inf):
            raise ValueError(
                f"{candidates} candidates, temperature {temperature}, norm {norm}, dependency {dependency}"
            )
        _require_sound(arrays)
        knots = tuple(arrays[f"knots.{band}"] for band in range(sum(name.startswith("knots.") for name in arrays)))
        sets = LabelSets(arrays["sets.offsets"], arrays["sets.ids"]) if "sets.ids" in arrays else None
        queries = values["queries"]
        return cls(
            source=CalibrationSource(**source),
            candidates=candidates,
            groups=arrays["groups"],
            probabilities=Probabilities(temperature, arrays["intercepts"], arrays["weights"], knots),
            brier={str(method): float(score) for method, score in values["brier"].items()},
            reliability=tuple(Reliability.from_dict(diagram) for diagram in values["reliability"]),
            by_frequency=tuple(Reliability.from_dict(diagram) for diagram in values["by_frequency"]),
            misses=Thresholds(arrays["misses"], int(queries["misses"])),
            false_positives=Thresholds(arrays["false_positives"], int(queries["false_positives"])),
            powerset=Powerset(norm, arrays["powerset"], dependency, sets),
            histogram=Histogram(arrays["histogram.candidates"], arrays["histogram.true"], **values["histogram"]),
            scores=arrays["scores"],
            sizes={level: SetSizes(**sizes) for level, sizes in values["sizes"].items()},
        )


def _expected(file: Path) -> dict[str, Expected]:
    """What the file of arrays must hold; numbers of steps and label sets are free."""
    floats, counts = ("F64",), ("I64",)
    expected = {
        "groups": Expected((None,), ("I8",)),
        "intercepts": Expected((len(BANDS),), floats),
        "weights": Expected((len(BANDS), None), floats),
        "misses": Expected((LEVELS + 1,), floats, finite=False),
        "false_positives": Expected((LEVELS + 1,), floats, finite=False),
        "powerset": Expected((None,), floats),
        "histogram.candidates": Expected((STEPS + 1,), counts),
        "histogram.true": Expected((STEPS + 1,), counts),
        "scores": Expected((None,)),
    }
    described = described_tensors(file)
    expected |= {
        f"knots.{band}": Expected((2, None), floats) for band in range(len(BANDS)) if f"knots.{band}" in described
    }
    sets = {name: Expected((None,), counts) for name in ("sets.offsets", "sets.ids")}
    return expected | (sets if sets.keys() & described.keys() else {})


def _require_sound(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """ValueError for numbers that stand for places that are not there."""
    groups = arrays["groups"]
    if len(groups) and not 0 <= groups.min() <= groups.max() < len(FREQUENCY_GROUPS):
        raise ValueError(f"groups from {groups.min()} to {groups.max()}")
    if any(
        not array.shape[1] or (np.diff(array[0]) < 0).any()
        for name, array in arrays.items()
        if name.startswith("knots.")
    ):
        raise ValueError("steps that do not rise")
    if "sets.offsets" in arrays:
        offsets, ids = arrays["sets.offsets"], arrays["sets.ids"]
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
            raise ValueError("label sets that do not lie one after the other")


def require_calibration(calibration: Calibration | None, name: str = "This run") -> Calibration:
    """The calibration. InputError, with the name of the run, where it has none."""
    if calibration is None:
        raise InputError(f"{name} is not calibrated; `xmc calibrate`, or xmc.calibrate, does it.")
    return calibration
