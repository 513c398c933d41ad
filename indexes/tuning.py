"""Choosing an index design by measurement: candidates are built, their search parameters walked, the best one kept."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from rich.filesize import decimal

from xmc.errors import ConfigError, InputError
from xmc.indexes.base import LabelIndex
from xmc.indexes.blocks import EmbeddingBlocks, Embeddings, Rows
from xmc.indexes.checks import require_matrix
from xmc.indexes.designs import EXACT_BELOW, Candidate, bytes_per_label, candidates, factory_of
from xmc.indexes.exact import ExactIndex
from xmc.indexes.faiss import FaissEngine, FaissIndex, set_parameters
from xmc.indexes.identifiers import Ids
from xmc.indexes.library import faiss
from xmc.indexes.progress import tuning_progress
from xmc.indexes.scan import exact_search, score_rows
from xmc.indexes.snapshot import Snapshot

__all__ = ["Goal", "OperatingPoint", "Tuned", "automatic_index", "pareto", "tune"]

logger = logging.getLogger(__name__)

SINGLE_QUERIES = 300
SINGLE_SECONDS, LEAST_SINGLE_QUERIES = 2.0, 20
"""Queries asked one by one for the latency of a point: so many, or fewer where they take longer than these seconds."""
WARM_UP, LEAST_QUERIES, MEASURED_SECONDS = 64, 500, 2.0
"""A point is measured on all queries, or on fewer, at least so many, where they would take longer than these seconds."""
CONFIRMED = 4
"""Points of a design, its fastest for the goal first, whose throughput is measured again, and their latency."""
FARTHER = 2
"""With fewer candidates to rank again, so many times the places are looked into at most; it does not pay beyond."""
TIED = 1e-5
"""A label found counts where its exact score is not lower by more than this than that of the k-th best label."""


@dataclass(frozen=True)
class Goal:
    """What an index must do.

    recall: share of the k best labels that a search finds, on average over queries.
    max_memory: bytes that the index may take, without the float32 embeddings, which stay on disk; None for any.
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

    def reaches(self, recall: float) -> bool:
        """Whether its recall is as high, by at least its standard error."""
        return self.recall - self.error >= recall or self.recall >= 1

    def meets(self, goal: Goal, labels: int) -> bool:
        """Whether it reaches the recall in the memory."""
        fits = goal.max_memory is None or self.bytes_per_label * labels <= goal.max_memory
        return fits and self.reaches(goal.recall)


@dataclass(frozen=True)
class Tuned:
    """The index chosen, its point, and all points measured."""

    index: LabelIndex
    chosen: OperatingPoint
    points: list[OperatingPoint]


def tune(
    embeddings: Embeddings,
    ids: Sequence[int | str] | Ids,
    queries: Embeddings,
    goal: Goal | None = None,
    journal: Path | None = None,
    report: Callable[[str], None] = lambda stage: None,
) -> Tuned:
    """Build the best index over label embeddings [L, D] for a goal, as measured on `queries` [n, D], float32.

    The queries should be held out from training and like those to come; 1,000 or more make the recall certain to half a
    percent. Exact search is always among the candidates. Designs are measured in turn until the budget is used up.

    journal: a file in which each design measured is noted; tuning that was stopped goes on after those.
    report: called with what is being done.

    Raises InputError for shapes that do not fit, and ConfigError where no design meets the goal; it names the best ones.
    """
    goal = Goal() if goal is None else goal
    if np.ndim(embeddings) != 2:
        raise InputError(f"The label embeddings must have the shape (L, D), but have {np.shape(embeddings)}.")
    embeddings = np.ascontiguousarray(embeddings, np.float32)
    queries = require_matrix(queries, embeddings.shape[1], "queries")
    if not len(queries) or not len(embeddings):
        raise InputError(f"Tuning needs labels and queries, but there are {len(embeddings)} and {len(queries)}.")
    start = time.monotonic()
    index = ExactIndex(embeddings.shape[1])
    report("exact search")
    index.build(embeddings, ids)
    trial = _Trial(index.snapshot(), queries, goal)
    notes = _Journal(journal, trial.fingerprint)
    points = [trial.exact_point()]
    best: tuple[OperatingPoint, FaissEngine | None] | None = None
    if points[0].meets(goal, len(index)):
        best = points[0], None
    built: tuple[str, FaissEngine, float] | None = None
    for candidate in candidates(len(index), index.dimension) if faiss is not None else []:
        found = notes.get(candidate.design)
        engine = None
        if found is None:
            reason = _reason_to_skip(candidate, trial, goal.budget - (time.monotonic() - start))
            if reason:
                logger.info("%s is left out: %s", candidate.design, reason)
                continue
            report(candidate.design)
            try:
                engine, seconds = _build(candidate, trial.snapshot.blocks, built)
            except InputError as error:
                logger.info("%s is left out: %s", candidate.design, error)
                continue
            built = candidate.design, engine, seconds
            found = trial.walk(candidate, engine, seconds)
            notes.put(candidate.design, found)
        points += found
        for point in found:
            if point.meets(goal, len(index)) and (best is None or _worth(point, goal) > _worth(best[0], goal)):
                best = point, engine
    if best is None:
        raise ConfigError(_refusal(points, goal, len(index), time.monotonic() - start))
    chosen, engine = best
    logger.info("chosen: %s %s, rescore %d", chosen.design, chosen.parameters, chosen.rescore)
    tuned = _index_of(index, chosen, engine, goal, report)
    tuned.measured = {**asdict(chosen), "goal": asdict(goal), "pareto": [asdict(point) for point in pareto(points)]}
    return Tuned(tuned, chosen, points)


def automatic_index(
    embeddings: Embeddings, ids: Sequence[int | str] | Ids, queries: Embeddings, goal: Goal | None = None
) -> LabelIndex:
    """The default: exact search below 50,000 labels, and without FAISS or queries to tune with; tuned for a goal above.

    Arguments and errors are those of `tune`.
    """
    if len(embeddings) < EXACT_BELOW or faiss is None or not len(queries):
        index = ExactIndex(embeddings.shape[1])
        index.build(embeddings, ids)
        return index
    goal = Goal() if goal is None else goal
    with tuning_progress(goal.budget) as report:
        return tune(embeddings, ids, queries, goal, report=report).index


def pareto(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Points with all measurements of which no other is at least as good in recall, throughput and memory, and better in one.

    By recall. Those without a latency were steps on the way to the ones with it.
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


class _Trial:
    """Labels, queries and the exact answers, against which points are measured."""

    def __init__(self, snapshot: Snapshot, queries: Embeddings, goal: Goal) -> None:
        self.snapshot, self.queries, self.goal = snapshot, queries, goal
        self.k = min(goal.k, len(snapshot))
        start = time.perf_counter()
        self.truth, _ = exact_search(queries, snapshot.blocks, self.k)
        self.seconds = time.perf_counter() - start
        self.rate = 2.0 * len(queries) * len(snapshot) * snapshot.blocks.dimension / self.seconds
        """Multiplications and additions a second of this machine."""

    @property
    def fingerprint(self) -> str:
        """Of the labels, the queries, k and the recall that was sought: points noted for others do not count."""
        rows = np.linspace(0, len(self.snapshot) - 1, 1000).astype(np.int64)
        digest = hashlib.sha256(self.snapshot.blocks.take(rows).tobytes() + self.queries.tobytes())
        digest.update(repr((len(self.snapshot), self.k, self.goal.recall)).encode())
        return digest.hexdigest()

    def exact_point(self) -> OperatingPoint:
        """Exact search."""
        throughput = len(self.queries) / self.seconds
        memory = bytes_per_label("exact", self.snapshot.blocks.dimension, len(self.snapshot))
        point = OperatingPoint("exact", {}, 0, 1.0, 0.0, throughput, math.nan, math.nan, memory, 0.0)
        return self._with_latency(self.snapshot, point)

    def walk(self, candidate: Candidate, engine: FaissEngine, build: float) -> list[OperatingPoint]:
        """Points of a design: for each depth, those on the way to the fastest that reaches the goal."""
        memory = bytes_per_label(candidate.design, self.snapshot.blocks.dimension, len(self.snapshot))
        found: dict[tuple[float, int], OperatingPoint] = {}

        def measure(depth: int, value: int) -> OperatingPoint:
            if (value, depth) not in found:
                parameters: dict[str, float] = {candidate.walk: value} if candidate.walk else {}
                if candidate.refines:
                    parameters["k_factor_rf"] = depth
                set_parameters(engine.index, candidate.design, parameters)
                held = replace(self.snapshot, engine=engine, rescore=candidate.rescore if candidate.refines else depth)
                found[value, depth] = self._measure(held, candidate.design, parameters, memory, build)
            return found[value, depth]

        values = candidate.values or (0,)
        low, high = 0, len(values) - 1
        for depth in reversed(candidate.depths):  # deeper comes first: what is shallower needs to look into more places
            place = _first_that_meets(values, low, high, partial(measure, depth), self.goal.recall)
            if place is None:
                break
            low = place
            high = max(place, int(np.searchsorted(values, FARTHER * values[place], side="right")) - 1)
        points = sorted(found.values(), key=lambda point: (not point.reaches(self.goal.recall), -point.throughput))
        return [
            self._confirmed(engine, candidate, point) if place < CONFIRMED else point
            for place, point in enumerate(points)
        ]

    def _confirmed(self, engine: FaissEngine, candidate: Candidate, point: OperatingPoint) -> OperatingPoint:
        """With the median of three throughputs, and latencies."""
        set_parameters(engine.index, candidate.design, point.parameters)
        held = replace(self.snapshot, engine=engine, rescore=point.rescore)
        rates = [point.throughput, *(self._search(held)[1] for _ in range(2))]
        return self._with_latency(held, replace(point, throughput=float(np.median(rates))))

    def _measure(
        self, held: Snapshot, design: str, parameters: dict[str, float], memory: float, build: float
    ) -> OperatingPoint:
        ids, throughput = self._search(held)
        recall, error = self._recall(held.rows(ids.ravel()).reshape(ids.shape))
        return OperatingPoint(
            design, parameters, held.rescore, recall, error, throughput, math.nan, math.nan, memory, build
        )

    def _search(self, held: Snapshot) -> tuple[Ids, float]:
        """Ids for all queries, or the first of them where that takes long, and queries a second."""
        start = time.perf_counter()
        held.search(self.queries[:WARM_UP], self.k)
        rate = WARM_UP / (time.perf_counter() - start)
        asked = self.queries[: max(LEAST_QUERIES, int(MEASURED_SECONDS * rate))]
        start = time.perf_counter()
        ids, _ = held.search(asked, self.k)
        return ids, len(asked) / (time.perf_counter() - start)

    def _with_latency(self, held: Snapshot, point: OperatingPoint) -> OperatingPoint:
        seconds: list[float] = []
        for query in self.queries[:SINGLE_QUERIES]:
            if sum(seconds) > SINGLE_SECONDS and len(seconds) >= LEAST_SINGLE_QUERIES:
                break
            start = time.perf_counter()
            held.search(query[None], self.k)
            seconds.append(time.perf_counter() - start)
        p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
        return replace(point, latency_p50=float(p50), latency_p99=float(p99))

    def _recall(self, rows: Rows) -> tuple[float, float]:
        """Mean and standard error; among equal scores any label is right."""
        scores = score_rows(self.queries[: len(rows)], self.snapshot.blocks, rows)
        each = (scores >= self.truth[: len(rows), -1:] - TIED).mean(axis=1)
        return float(each.mean()), float(each.std() / math.sqrt(len(each)))


class _Journal:
    """What was measured, a line a design, for the same labels and queries."""

    def __init__(self, file: Path | None, fingerprint: str) -> None:
        self._file, self._fingerprint = file, fingerprint
        self._points: dict[str, list[OperatingPoint]] = {}
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    note = json.loads(line)
                    if note["fingerprint"] == fingerprint:
                        self._points[note["design"]] = [OperatingPoint(**point) for point in note["points"]]
                except (ValueError, KeyError, TypeError):
                    logger.info("%s holds a line that was not written whole; it is passed over", file)

    def get(self, design: str) -> list[OperatingPoint] | None:
        """The points of a design, where it was measured."""
        return self._points.get(design)

    def put(self, design: str, points: list[OperatingPoint]) -> None:
        """Note a design."""
        if self._file is None:
            return
        note = {"fingerprint": self._fingerprint, "design": design, "points": [asdict(point) for point in points]}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")


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


def _worth(point: OperatingPoint, goal: Goal) -> float:
    if goal.metric == "throughput":
        return point.throughput
    return -point.latency_p99 if math.isfinite(point.latency_p99) else -math.inf


def _reason_to_skip(candidate: Candidate, trial: _Trial, left: float) -> str:
    """Why a candidate cannot be measured in the memory or the seconds left; "" where it can."""
    labels, dimension = len(trial.snapshot), trial.snapshot.blocks.dimension
    memory = bytes_per_label(candidate.design, dimension, labels) * labels
    if trial.goal.max_memory is not None and memory > trial.goal.max_memory:
        return f"it would take {decimal(round(memory))}"
    seconds = _build_work(candidate.design, labels, dimension) / trial.rate
    return f"it would take about {seconds:.0f} s, and {max(left, 0):.0f} s are left" if seconds > left else ""


def _build_work(design: str, labels: int, dimension: int) -> float:
    """Multiplications and additions of building a design, roughly: half as much again as its largest parts take."""
    if design.startswith("IVF"):
        cells = int(design[3:].partition(",")[0])
        return 3.0 * dimension * cells * (10 * min(labels, 64 * cells, 262_144) + labels)
    if design.startswith("HNSW"):  # a few thousand distances a label, at a hundredth of the rate of a product
        return 2.0 * dimension * labels * 100 * 100 * math.log2(max(labels, 2))
    return 4.0 * dimension * labels


def _build(
    candidate: Candidate, embeddings: EmbeddingBlocks, before: tuple[str, FaissEngine, float] | None
) -> tuple[FaissEngine, float]:
    """The engine, and the seconds it took; a design without the Refine stage is taken out of the one built with it before."""
    if before is not None and before[0].startswith(f"{candidate.design},Refine("):
        _, refined, seconds = before
        base = faiss.clone_index(faiss.downcast_index(refined.index.base_index))
        return FaissEngine(base, refined.learned_from), seconds
    start = time.perf_counter()
    engine = FaissIndex(embeddings.dimension, factory_of(candidate.design)).engine_of(embeddings)
    return engine, time.perf_counter() - start


def _index_of(
    exact: ExactIndex, chosen: OperatingPoint, engine: FaissEngine | None, goal: Goal, report: Callable[[str], None]
) -> LabelIndex:
    """The chosen index over the labels of the exact one; built again where a stopped run had measured it."""
    index: LabelIndex = exact
    if chosen.design != "exact":
        index = FaissIndex(exact.dimension, factory_of(chosen.design), chosen.parameters, chosen.rescore)
        if engine is None:
            report(f"{chosen.design}, again")
        index.adopt(exact.snapshot(), engine)
    return index


def _refusal(points: Sequence[OperatingPoint], goal: Goal, labels: int, seconds: float) -> str:
    memory = "" if goal.max_memory is None else f" in {decimal(goal.max_memory)}"
    fitting = [p for p in points if goal.max_memory is None or p.bytes_per_label * labels <= goal.max_memory]
    if not fitting:
        least = min(points, key=lambda point: point.bytes_per_label)
        return (
            f"No design holds {labels:,} labels{memory}: the smallest measured, {least.design}, takes "
            f"{decimal(round(least.bytes_per_label * labels))}. Allow more memory."
        )
    best = max(fitting, key=lambda point: point.recall)
    return (
        f"No design reaches a recall of {goal.recall} at {goal.k}{memory} within {seconds:.0f} s of a budget of "
        f"{goal.budget:.0f} s; the best, {best.design}, reaches {best.recall:.4f} ± {best.error:.4f}. Ask for less "
        f"recall, allow more memory or time, or use the design exact."
    )
