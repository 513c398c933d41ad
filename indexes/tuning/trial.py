"""The measurement of designs: recall against exact search, throughput, latency."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from xmc.arrays import Embeddings, Rows
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.designs import bytes_per_label, design_of
from xmc.indexes.engines.faiss import FaissDesign, FaissEngine, GpuFaissEngine, factory_of
from xmc.indexes.scan import exact_search, score_rows
from xmc.indexes.tuning.candidates import TriedDesign
from xmc.indexes.tuning.goal import Goal, OperatingPoint
from xmc.indexes.versions import IndexVersion

__all__ = ["SAMPLED", "Trial"]

SINGLE_QUERIES = 300
SINGLE_SECONDS, LEAST_SINGLE_QUERIES = 2.0, 20
"""Queries asked one by one for the latency of a point: this number, or fewer where they take longer than these seconds."""
WARM_UP, LEAST_QUERIES, MEASURED_SECONDS = 64, 500, 1.0
"""A point is measured on all queries, or on LEAST_QUERIES or more, where all would take longer than these seconds."""
CONFIRMED = 3
"""Points of a design, its fastest for the goal first, whose throughput is measured again, and their latency."""
SAMPLED = 65_536
"""Labels from which the speed of a scan over all of them is told."""
FARTHER = 2
"""With fewer candidates to rank again, this multiple of the places is looked into at most; more does not pay."""
TIED = 1e-5
"""A label found counts where its exact score is not lower by more than this than that of the k-th best label."""


class Trial:
    """Labels, queries and the exact answers, against which points are measured."""

    def __init__(self, held: IndexVersion, queries: Embeddings, goal: Goal) -> None:
        self.held, self.queries, self.goal = held, queries, goal
        self.k = min(goal.k, len(held))
        start = time.perf_counter()
        self.truth, _ = exact_search(queries, held.blocks, self.k)
        self.seconds = time.perf_counter() - start
        self.rate = 2.0 * len(queries) * len(held) * held.blocks.dimension / self.seconds
        """Multiplications and additions a second of this machine."""

    @property
    def fingerprint(self) -> str:
        """Of the labels, the queries, k and the recall that was sought: points noted for others do not count."""
        rows = np.linspace(0, len(self.held) - 1, 1000).astype(np.int64)
        digest = hashlib.sha256(self.held.blocks.take(rows).tobytes() + self.queries.tobytes())
        placed = (self.held.devices,) if self.held.devices else ()
        digest.update(repr((len(self.held), self.k, self.goal.recall, *placed)).encode())
        return digest.hexdigest()

    def exact_point(self) -> OperatingPoint:
        """Exact search on the processor."""
        throughput = len(self.queries) / self.seconds
        memory = bytes_per_label("exact", self.held.blocks.dimension, len(self.held))
        point = OperatingPoint("exact", {}, 0, 1.0, 0.0, throughput, math.nan, math.nan, memory, 0.0)
        return self._with_latency(self.held, point)

    def placed_point(self, design: str, rescore: int) -> OperatingPoint:
        """Exact search on the devices, in the precision of the design."""
        start = time.perf_counter()
        held = (
            self.held if design == "exact" else self.held.with_design(design_of(design, self.held.dimension), rescore)
        )
        build = time.perf_counter() - start
        memory = held.design.device_bytes_per_label(len(held))
        point = replace(self._measure(held, design, {}, memory, build), device=",".join(held.devices))
        return self._with_latency(held, point)

    def point(self, held: IndexVersion, design: str, build: float) -> OperatingPoint:
        """A design as it stands, with its own parameters, built in some seconds."""
        memory = bytes_per_label(design, held.dimension, len(held))
        return self._with_latency(held, self._measure(held, design, {}, memory, build))

    def scan_worth(self, candidate: TriedDesign) -> float:
        """What the goal makes best of a scan of all labels, see OperatingPoint.worth, by one of SAMPLED: at its least depth."""
        sample = EmbeddingBlocks([self.held.blocks.take(np.arange(min(SAMPLED, len(self.held))))])
        design = FaissDesign(sample.dimension, candidate.design)
        held = IndexVersion.from_embeddings(design, sample, candidate.depths[0])
        share = len(held) / len(self.held)
        if self.goal.metric == "throughput":
            return self._search(held)[1] * share
        return -self._latencies(held)[1] / share

    def walk(self, candidate: TriedDesign, engine: FaissEngine | GpuFaissEngine, build: float) -> list[OperatingPoint]:
        """Points of a design: for each depth, those on the way to the fastest that reaches the goal."""
        memory = bytes_per_label(candidate.design, self.held.blocks.dimension, len(self.held))
        measured: dict[tuple[float, int], OperatingPoint] = {}

        def measure(depth: int, value: int) -> OperatingPoint:
            if (value, depth) not in measured:
                parameters: dict[str, float] = {candidate.walk: value} if candidate.walk else {}
                engine.set_parameters(factory_of(candidate.design), parameters)
                held = replace(self.held, engine=engine, rescore=depth)
                measured[value, depth] = self._measure(held, candidate.design, parameters, memory, build)
            return measured[value, depth]

        values = candidate.values or (0,)
        low, high = 0, len(values) - 1
        for depth in reversed(candidate.depths):  # deeper comes first: what is shallower needs to look into more places
            place = _first_that_meets(values, low, high, partial(measure, depth), self.goal.recall)
            if place is None:
                break
            low = place
            high = max(place, int(np.searchsorted(values, FARTHER * values[place], side="right")) - 1)
        points = sorted(measured.values(), key=lambda point: (not point.reaches(self.goal.recall), -point.throughput))
        return [
            self._confirmed(engine, candidate, point) if place < CONFIRMED else point
            for place, point in enumerate(points)
        ]

    def _confirmed(
        self, engine: FaissEngine | GpuFaissEngine, candidate: TriedDesign, point: OperatingPoint
    ) -> OperatingPoint:
        """With the median of three throughputs, and latencies."""
        engine.set_parameters(factory_of(candidate.design), point.parameters)
        held = replace(self.held, engine=engine, rescore=point.rescore)
        rates = [point.throughput, *(self._search(held)[1] for _ in range(2))]
        return self._with_latency(held, replace(point, throughput=float(np.median(rates))))

    def _measure(
        self, held: IndexVersion, design: str, parameters: dict[str, float], memory: float, build: float
    ) -> OperatingPoint:
        rows, throughput = self._search(held)
        recall, error = self._recall(rows)
        device = ",".join(held.devices) if isinstance(held.engine, GpuFaissEngine) else "cpu"
        return OperatingPoint(
            design, parameters, held.rescore, recall, error, throughput, math.nan, math.nan, memory, build, device
        )

    def _search(self, held: IndexVersion) -> tuple[Rows, float]:
        """Rows for all queries, or the first of them where that takes long, and queries a second."""
        start = time.perf_counter()
        held.search(self.queries[:WARM_UP], self.k)
        rate = WARM_UP / (time.perf_counter() - start)
        asked = self.queries[: max(LEAST_QUERIES, int(MEASURED_SECONDS * rate))]
        start = time.perf_counter()
        _, rows = held.search(asked, self.k)
        return rows, len(asked) / (time.perf_counter() - start)

    def _with_latency(self, held: IndexVersion, point: OperatingPoint) -> OperatingPoint:
        p50, p99 = self._latencies(held)
        return replace(point, latency_p50=p50, latency_p99=p99)

    def _latencies(self, held: IndexVersion) -> tuple[float, float]:
        """Median and 99% quantile of one query alone, in milliseconds."""
        seconds: list[float] = []
        for query in self.queries[:SINGLE_QUERIES]:
            if sum(seconds) > SINGLE_SECONDS and len(seconds) >= LEAST_SINGLE_QUERIES:
                break
            start = time.perf_counter()
            held.search(query[None], self.k)
            seconds.append(time.perf_counter() - start)
        p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
        return float(p50), float(p99)

    def _recall(self, rows: Rows) -> tuple[float, float]:
        """Mean and standard error; among equal scores any label is right."""
        scores = score_rows(self.queries[: len(rows)], self.held.blocks, rows)
        each = (scores >= self.truth[: len(rows), -1:] - TIED).mean(axis=1)
        return float(each.mean()), float(each.std() / math.sqrt(len(each)))


def _first_that_meets(
    values: Sequence[int], low: int, high: int, measure: Callable[[int], OperatingPoint], recall: float
) -> int | None:
    """The place, from low to high, of the smallest value that reaches the recall, which grows with the value; or None."""
    reached = None
    top = high
    while low <= high:
        middle = (low + high) // 2
        if measure(values[middle]).reaches(recall):
            reached, high = middle, middle - 1
            continue
        if reached is None:  # look at the top now, instead of going there in many slow steps
            if middle == top or not measure(values[top]).reaches(recall):
                return None
            reached, high = top, top - 1
        low = middle + 1
    return reached
