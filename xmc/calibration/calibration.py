"""All that calibration knows of a run, and its files."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from xmc.calibration.candidates import Candidates
from xmc.calibration.decisions import Histogram
from xmc.calibration.dependency import LabelSets
from xmc.calibration.powerset import Powerset
from xmc.calibration.probabilities import Probabilities
from xmc.calibration.reliability import Reliability
from xmc.calibration.risk import SetSizes, Thresholds
from xmc.errors import InputError

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
            return cls._read(directory)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            logger.warning("%s is of another version of xmc (%r); calibrate again", directory, error)
            return None

    @classmethod
    def _read(cls, directory: Path) -> Calibration:
        values = json.loads((directory / VALUES).read_text(encoding="utf-8"))
        source = dict(values["source"])
        if values["format"] == 1:
            source["labels"] = FIRST_FORMAT + source["labels"]
        elif values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        arrays = load_file(directory / ARRAYS)
        knots = tuple(arrays[f"knots.{band}"] for band in range(sum(name.startswith("knots.") for name in arrays)))
        sets = LabelSets(arrays["sets.offsets"], arrays["sets.ids"]) if "sets.ids" in arrays else None
        queries = values["queries"]
        return cls(
            source=CalibrationSource(**source),
            candidates=int(values["candidates"]),
            groups=arrays["groups"],
            probabilities=Probabilities(float(values["temperature"]), arrays["intercepts"], arrays["weights"], knots),
            brier=values["brier"],
            reliability=tuple(Reliability.from_dict(diagram) for diagram in values["reliability"]),
            by_frequency=tuple(Reliability.from_dict(diagram) for diagram in values["by_frequency"]),
            misses=Thresholds(arrays["misses"], int(queries["misses"])),
            false_positives=Thresholds(arrays["false_positives"], int(queries["false_positives"])),
            powerset=Powerset(
                float(values["powerset"]["norm"]), arrays["powerset"], float(values["powerset"]["dependency"]), sets
            ),
            histogram=Histogram(arrays["histogram.candidates"], arrays["histogram.true"], **values["histogram"]),
            scores=arrays["scores"],
            sizes={level: SetSizes(**sizes) for level, sizes in values["sizes"].items()},
        )


def require_calibration(calibration: Calibration | None, name: str = "This run") -> Calibration:
    """The calibration. InputError, with the name of the run, where it has none."""
    if calibration is None:
        raise InputError(f"{name} is not calibrated; `xmc calibrate`, or xmc.calibrate, does it.")
    return calibration
