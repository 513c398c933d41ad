"""The numbers of the curves: training, calibration."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmc.report.run import ReportedRun
from xmc.report.task import Task
from xmc.search.run_directory import RunDirectory

__all__ = ["ScoreBin", "TrainingCurves", "calibration", "read_training_log", "training_curves"]

BINS = 10
MOST_POINTS = 300

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class TrainingCurves:
    """Points (step, value) of a training log; of long ones means over equal numbers of steps, at the last of them.

    validation: by metric, in percent.
    """

    loss: Points
    learning_rate: Points
    validation: dict[str, Points] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreBin:
    """Predictions with similar scores: their mean score, the share of them that is true, and their number."""

    score: float
    hits: float
    predictions: int


def read_training_log(directory: Path) -> TrainingCurves:
    """The curves of a run's metrics.jsonl; empty where there is none."""
    return training_curves(RunDirectory(directory).read_log())


def training_curves(log: str) -> TrainingCurves:
    """The curves of the content of a metrics.jsonl. A line that was not written whole is passed over."""
    loss: Points = []
    rate: Points = []
    validation: dict[str, Points] = {}
    for line in log.splitlines():
        try:
            values = json.loads(line)
            step = int(values["step"])
            if "loss" in values:
                loss.append((step, float(values["loss"])))
            if "learning_rate" in values:
                rate.append((step, float(values["learning_rate"])))
            for name, value in values.get("validation", {}).items():
                validation.setdefault(name, []).append((step, float(value)))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return TrainingCurves(_thinned(loss), _thinned(rate), validation)


def calibration(run: ReportedRun, task: Task, places: int) -> list[ScoreBin]:
    """The first `places` predictions of each query in BINS bins of equal numbers, by score."""
    labels, scores = run.by_index.labels[:, :places], run.by_index.scores[:, :places]
    predicted = np.isfinite(scores)
    predicted_scores: npt.NDArray[np.float32] = scores[predicted]
    hits = task.contains(labels)[predicted]
    order = np.argsort(predicted_scores, kind="stable")
    return [
        ScoreBin(float(predicted_scores[rows].mean()), float(hits[rows].mean()), len(rows))
        for rows in np.array_split(order, BINS)
        if len(rows)
    ]


def _thinned(points: Points) -> Points:
    if len(points) <= MOST_POINTS:
        return points
    groups = np.array_split(np.array(points), MOST_POINTS)
    return [(int(group[-1, 0]), float(group[:, 1].mean())) for group in groups]
