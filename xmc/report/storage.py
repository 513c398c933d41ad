"""What a run takes on disk and in memory, and what its index was measured to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xmc.errors import StoreError
from xmc.indexes.designs import is_exact
from xmc.indexes.tuning import OperatingPoint
from xmc.report.run import ReportedRun

__all__ = ["IndexFacts", "bytes_in_memory", "describe_index"]


@dataclass(frozen=True)
class IndexFacts:
    """What a report says of a run's index.

    parameters: those of its search, such as "nprobe=8". bytes_per_label: memory by its design. chosen: the point that tuning
    took; None where the index was not tuned. points: those that no other beats; in an older index, the chosen one alone.
    goal_k: the k of their recall. goal: the goal of tuning, in words.
    """

    design: str
    parameters: str
    bytes_per_label: float
    chosen: OperatingPoint | None
    points: tuple[OperatingPoint, ...]
    goal_k: int
    goal: str


def bytes_in_memory(run: ReportedRun) -> dict[str, int]:
    """Bytes that a loaded run holds, by part; label embeddings are memory-mapped, and stay while there is room for them."""
    model, version = run.retriever.model, run.retriever.labels
    labels, memory = len(version), version.memory
    vectors = 0 if model.label_vectors is None else model.label_vectors.nbytes
    all_weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    return {
        "encoder": all_weights - vectors,
        "label vectors, temperature": vectors,
        "label embeddings": 4 * model.dimension * labels,
        "index": 0
        if is_exact(version.index.design.name, labels)
        else round(describe_index(run).bytes_per_label * labels),
        "labels": version.table.nbytes,
        **({} if memory is None else {"remembered queries": sum(memory.bytes_by_part.values())}),
    }


def describe_index(run: ReportedRun) -> IndexFacts:
    """The design of a run's index, and what tuning measured; StoreError for measurements of another form."""
    index = run.retriever.labels.index
    measured, design = index.measured, index.design
    settings = dict(design.parameters or {})
    if index.rescore:
        settings["rescore"] = index.rescore
    size = design.bytes_per_label(len(index))
    written = " ".join(f"{name}={value:g}" for name, value in settings.items())
    try:
        chosen, goal = (_point(measured), measured["goal"]) if measured else (None, {})
        points = tuple(_point(point) for point in measured.get("pareto", [measured] if measured else []))
        sentence = f"recall@{goal['k']} {goal['recall']}, {goal['metric']}" if goal else ""
        return IndexFacts(design.name, written, size, chosen, points, int(goal.get("k", 0)), sentence)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{run.directory / 'index'} does not say what tuning measured: {error!r}.") from error


def _point(measured: Mapping[str, Any]) -> OperatingPoint:
    return OperatingPoint(**{name: value for name, value in measured.items() if name not in ("goal", "pareto")})
