"""Choosing an index design by measurement: candidates are built, their search parameters walked, the best one kept."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from xmc.arrays import Embeddings
from xmc.errors import ConfigError, InputError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.checks import require_matrix
from xmc.indexes.contract import Devices
from xmc.indexes.designs import bytes_per_label, design_of
from xmc.indexes.engines.exact import ExactDesign
from xmc.indexes.engines.faiss import FaissDesign, FaissEngine, GpuFaissEngine, factory_of
from xmc.indexes.engines.faiss_parts import empty_faiss_index
from xmc.indexes.engines.gpu_placement import GpuBuild, gpu_placement
from xmc.indexes.engines.gpu_resources import gpu_numbers
from xmc.indexes.identifiers import LabelIds
from xmc.indexes.label_index import LabelIndex
from xmc.indexes.library import faiss
from xmc.indexes.placement import devices_of
from xmc.indexes.tuning.candidates import (
    APPROXIMATE_FROM,
    DEVICE_EXACT,
    TriedDesign,
    candidates,
    device_candidates,
    installed,
)
from xmc.indexes.tuning.goal import Goal, OperatingPoint, pareto
from xmc.indexes.tuning.journal import TuningJournal
from xmc.indexes.tuning.trial import SAMPLED, Trial
from xmc.indexes.versions import IndexVersion

__all__ = ["Tuned", "TunedVersion", "tune", "tune_version"]

SCAN_TOLD = 4
"""Scans are told from a sample where there are this multiple of its labels; of fewer labels each scan is measured."""

logger = logging.getLogger("xmc.indexes.tuning")


@dataclass(frozen=True)
class TunedVersion:
    """The rows with the design chosen, its point, and all points measured."""

    version: IndexVersion
    chosen: OperatingPoint
    points: list[OperatingPoint]


@dataclass(frozen=True)
class Tuned:
    """The index chosen, its point, and all points measured."""

    index: LabelIndex
    chosen: OperatingPoint
    points: list[OperatingPoint]


def tune(
    embeddings: Embeddings,
    ids: Sequence[int | str] | LabelIds,
    queries: Embeddings,
    goal: Goal | None = None,
    journal: Path | None = None,
    report: Callable[[str], None] = lambda stage: None,
    device: str | Sequence[str] = "cpu",
) -> Tuned:
    """Build the best index over label embeddings [L, D] for a goal, as measured on `queries` [n, D], float32.

    The queries should be held out from training and like those to come; 1,000 or more make the recall certain to half a
    percent. Exact search is always among the candidates. Designs are measured in turn until the budget is used up.

    journal: a file in which each design measured is noted; tuning that was stopped goes on after those.
    report: called with what is being done. device: where the index is to run, see `build_index`; on devices exact search in
        32 and 16 bits is measured first, then what FAISS has classes for there, and the processor's designs where none of
        these meets the goal.

    Raises InputError for shapes that do not fit, and ConfigError where no design meets the goal; it names the best ones.
    """
    if np.ndim(embeddings) != 2:
        raise InputError(f"The label embeddings must have the shape (L, D), but have {np.shape(embeddings)}.")
    embeddings = np.ascontiguousarray(embeddings, np.float32)
    index = LabelIndex(ExactDesign(embeddings.shape[1]), devices=devices_of(device))
    index.build(embeddings, ids)
    tuned = tune_version(index.snapshot().held, queries, goal, journal, report)
    return Tuned(LabelIndex.from_version(tuned.version, index.ids), tuned.chosen, tuned.points)


def tune_version(
    version: IndexVersion,
    queries: Embeddings,
    goal: Goal | None = None,
    journal: Path | None = None,
    report: Callable[[str], None] = lambda stage: None,
) -> TunedVersion:
    """As `tune`, of rows that an exact design searches; none of them may be removed."""
    goal = Goal() if goal is None else goal
    queries = require_matrix(queries, version.dimension, "queries")
    if not len(queries) or not len(version):
        raise InputError(f"Tuning needs labels and queries, but there are {len(version)} and {len(queries)}.")
    start = time.monotonic()
    report("exact search")
    trial = Trial(version, queries, goal)
    notes = TuningJournal(journal, trial.fingerprint)
    points = _exact_points(trial)
    best: tuple[OperatingPoint, FaissEngine | GpuFaissEngine | None] | None = None
    for point in points:
        if point.meets(goal, len(version)) and (best is None or point.worth(goal) > best[0].worth(goal)):
            best = point, None
    for candidate, devices in _tried(trial):
        if version.devices and not devices and best is not None:
            break  # the processor is for what devices cannot hold
        note = f"{candidate.design} on devices" if devices else candidate.design
        measured, engine = notes.get(note), None
        if measured is None:
            left = goal.budget - (time.monotonic() - start)
            reason = _reason_to_skip(candidate, trial, left) or _slower(candidate, trial, best and best[0])
            if reason:
                logger.info("%s is left out: %s", candidate.design, reason)
                continue
            report(candidate.design)
            try:
                engine, seconds = _build(candidate, trial.held.blocks, devices)
            except InputError as error:
                logger.info("%s is left out: %s", candidate.design, error)
                continue
            measured = trial.walk(candidate, engine, seconds)
            notes.put(note, measured)
        points += measured
        for point in measured:
            if point.meets(goal, len(version)) and (best is None or point.worth(goal) > best[0].worth(goal)):
                best = point, engine
    if best is None:
        raise ConfigError(_refusal(points, goal, len(version), time.monotonic() - start))
    chosen, engine = best
    logger.info("chosen: %s %s, rescore %d, %s", chosen.design, chosen.parameters, chosen.rescore, chosen.device)
    tuned = _version_of(trial.held, chosen, engine, report)
    noted = {**asdict(chosen), "goal": asdict(goal), "pareto": [asdict(point) for point in pareto(points)]}
    return TunedVersion(replace(tuned, measured=noted), chosen, points)


def _exact_points(trial: Trial) -> list[OperatingPoint]:
    """Exact search: on the processor, or on the devices that the rows are searched on, in each precision there."""
    if not trial.held.devices:
        return [trial.exact_point()]
    exact = DEVICE_EXACT if len(trial.held) >= APPROXIMATE_FROM else DEVICE_EXACT[:1]
    return [trial.placed_point(design, rescore) for design, rescore in exact]


def _tried(trial: Trial) -> Iterator[tuple[TriedDesign, Devices]]:
    """The designs to measure and where: those that FAISS has a class for on the devices first, then the processor's."""
    held = trial.held
    if faiss is None:
        return
    if gpu_numbers(held.devices):
        build = GpuBuild.of_this_process()
        for candidate in device_candidates(len(held), held.dimension):
            placement = gpu_placement(empty_faiss_index(factory_of(candidate.design), held.dimension), build)
            if placement.gpu_class:
                yield candidate, held.devices
            else:
                logger.info("%s is left out: %s", candidate.design, placement.reason)
    for candidate in installed(candidates(len(held), held.dimension), held.dimension):
        yield candidate, ()


def _reason_to_skip(candidate: TriedDesign, trial: Trial, left: float) -> str:
    """Why a candidate cannot be measured in the memory or the seconds left; "" where it can."""
    labels, dimension = len(trial.held), trial.held.blocks.dimension
    memory = bytes_per_label(candidate.design, dimension, labels) * labels
    if trial.goal.max_memory is not None and memory > trial.goal.max_memory:
        return f"it would take {decimal(round(memory))}"
    seconds = _build_work(candidate, labels, dimension) / trial.rate
    return f"it would take about {seconds:.0f} s, and {max(left, 0):.0f} s are left" if seconds > left else ""


def _slower(candidate: TriedDesign, trial: Trial, best: OperatingPoint | None) -> str:
    """Why a scan of many labels need not be built, where a scan of some tells that it cannot be the best; else ""."""
    if best is None or not candidate.scans or len(trial.held) < SCAN_TOLD * SAMPLED:
        return ""
    return "" if trial.scan_worth(candidate) > best.worth(trial.goal) else f"{best.design} is faster"


def _build_work(candidate: TriedDesign, labels: int, dimension: int) -> float:
    """Multiplications and additions of building a design, roughly: half as much again as its largest parts take."""
    cells = candidate.cells
    if cells:
        return 3.0 * dimension * cells * (10 * min(labels, 64 * cells, 262_144) + labels)
    if candidate.is_graph:  # a few thousand distances a label, at a hundredth of the rate of a product
        return 2.0 * dimension * labels * 100 * 100 * math.log2(max(labels, 2))
    return 4.0 * dimension * labels


def _build(
    candidate: TriedDesign, embeddings: EmbeddingBlocks, devices: Devices
) -> tuple[FaissEngine | GpuFaissEngine, float]:
    """The engine, and the seconds it took.

    InputError for too few labels, and where it is built on the processor and devices are asked for.
    """
    start = time.perf_counter()
    engine = FaissDesign(embeddings.dimension, candidate.design).build(embeddings, devices)
    if devices and not isinstance(engine, GpuFaissEngine):
        raise InputError(f"it stays on the processor, and {', '.join(devices)} is asked for")
    return engine, time.perf_counter() - start


def _version_of(
    exact: IndexVersion,
    chosen: OperatingPoint,
    engine: FaissEngine | GpuFaissEngine | None,
    report: Callable[[str], None],
) -> IndexVersion:
    """The chosen design over the rows of the exact one; built again where a stopped run had measured it."""
    if chosen.design == ExactDesign.kind:
        return exact
    if chosen.design.startswith(f"{ExactDesign.kind}:"):
        return exact.with_design(design_of(chosen.design, exact.dimension), chosen.rescore)
    design = FaissDesign(exact.dimension, chosen.design, chosen.parameters)
    if engine is None:
        report(f"{chosen.design}, again")
    else:
        engine.set_parameters(design.factory, design.parameters)
    return exact.with_design(design, chosen.rescore, engine)


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
