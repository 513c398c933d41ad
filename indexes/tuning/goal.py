"""What an index must do, and what was measured of a design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from xmc.errors import ConfigError

__all__ = ["Goal", "OperatingPoint", "pareto"]


@dataclass(frozen=True)
class Goal:
    """What an index must do.

    recall: share of the k best labels that a search finds, on average over queries.
    max_memory: bytes that the index may take, without the float32 embeddings, which stay on disk; on devices, of their memory,
        copies of embeddings among it; None for any.
    metric: what to optimise: "throughput", queries a second in batches, or "latency", the 99% quantile of one query.
    budget: seconds that tuning may take; a design that would take longer is left out.
    """

    recall: float = 0.99
    k: int = 10
    max_memory: int | None = None
    metric: Literal["throughput", "latency"] = "throughput"
    budget: float = 600.0

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("recall", self.recall, (int, float)),
            ("k", self.k, int),
            ("max_memory", self.max_memory, (int, float, type(None))),
            ("budget", self.budget, (int, float)),
        ):
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ConfigError(f"{name} must be a number, but is {value!r}.")
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall must be above 0 and at most 1, but is {self.recall}.")
        if self.k < 1:
            raise ConfigError(f"k must be at least 1, but is {self.k}.")
        if self.metric not in ("throughput", "latency"):
            raise ConfigError(f'metric must be "throughput" or "latency", but is {self.metric!r}.')
        if self.budget <= 0:
            raise ConfigError(f"budget must be positive, but is {self.budget} seconds.")


@dataclass(frozen=True)
class OperatingPoint:
    """A design with its search parameters, as measured.

    recall: at the goal's k; error: its standard error over the queries. throughput: queries a second, in one batch.
    latency_p50, latency_p99: milliseconds of one query alone; NaN where not measured. build: seconds.
    bytes_per_label: of the memory of `device`, which is the processor's where it is "cpu"; several devices share it.
    """

    design: str
    parameters: dict[str, float]
    rescore: int
    recall: float
    error: float
    throughput: float
    latency_p50: float
    latency_p99: float
    bytes_per_label: float
    build: float
    device: str = "cpu"

    def reaches(self, recall: float) -> bool:
        """Whether its recall is as high, by at least its standard error."""
        return self.recall - self.error >= recall or self.recall >= 1

    def meets(self, goal: Goal, labels: int) -> bool:
        """Whether it reaches the recall in the memory."""
        fits = goal.max_memory is None or self.bytes_per_label * labels <= goal.max_memory
        return fits and self.reaches(goal.recall)

    def worth(self, goal: Goal) -> float:
        """What the goal makes best: queries a second, or minus the milliseconds of one query."""
        if goal.metric == "throughput":
            return self.throughput
        return -self.latency_p99 if math.isfinite(self.latency_p99) else -math.inf


def pareto(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """The points that no other beats, by recall: none is as good in recall, throughput and memory, and better in one.

    Points without a latency are left out: they were steps on the way to the ones with it.
    """
    points = [point for point in points if math.isfinite(point.latency_p99)]
    kept = [
        point
        for point in points
        if not any(
            other.recall >= point.recall
            and other.throughput >= point.throughput
            and other.bytes_per_label <= point.bytes_per_label
            and (other.recall, other.throughput, other.bytes_per_label)
            != (point.recall, point.throughput, point.bytes_per_label)
            for other in points
        )
    ]
    return sorted(kept, key=lambda point: (point.recall, point.throughput))
