"""What the page's tables hold, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.filesize import decimal

from xmc.metrics import UNKNOWN_LABEL
from xmc.report.mistakes import CAUSES, Missed, Mistakes, Wrong
from xmc.report.reasons import reasons_of_predictions
from xmc.report.run import PLACES, ReportedRun
from xmc.report.storage import IndexFacts
from xmc.report.task import Task

__all__ = [
    "Cell",
    "LabelRow",
    "QueryRow",
    "bytes_table",
    "decile_table",
    "facts_table",
    "metric_table",
    "query_rows",
    "signed",
]

DECILE_METRICS = ("P@1", "P@5", "PSP@1", "PSP@5", "R@10", "R@100")
MOST_CHARACTERS = 20_000
"""More of a query's text is not put on the page."""


@dataclass(frozen=True)
class Cell:
    """A number with what it is sorted by. difference: to the first run's, "" for that; sign: whether that is for the better."""

    text: str
    value: float
    difference: str = ""
    sign: int = 0
    best: bool = False


@dataclass(frozen=True)
class LabelRow:
    """A label as the page shows it: a prediction with its place and score, or a true label with its place in each run."""

    text: str
    uid: str
    note: str
    hit: bool = False
    place: int = 0
    causes: tuple[tuple[str, str, str], ...] = ()
    """Key, short text, and what was found."""
    places: tuple[tuple[str, bool, tuple[str, ...]], ...] = ()
    """For each run: place, whether it is among the first m, and causes, by key."""
    reasons: str = ""
    """What speaks for a prediction."""


@dataclass(frozen=True)
class QueryRow:
    """A query as the page shows it. qualities: nDCG of each run; causes: keys, of all runs."""

    number: int
    uid: str
    text: str
    left_out: int
    worst: bool
    true: tuple[LabelRow, ...]
    predicted: tuple[tuple[LabelRow, ...], ...]
    qualities: tuple[float, ...]
    causes: tuple[str, ...]


def facts_table(runs: Sequence[ReportedRun], indexes: Sequence[IndexFacts]) -> list[tuple[str, list[str]]]:
    """Facts about the runs: for each name the value of every run; further stages of search where a run has some."""

    def row(run: ReportedRun, index: IndexFacts) -> dict[str, str]:
        config, training = run.retriever.config, run.retriever.metrics.training
        directory = getattr(config.encoder, "directory", "")
        named = f", {directory}" if directory else ""
        return {
            "directory": str(run.directory),
            "encoder": f"{config.encoder.kind}{named}, {run.retriever.model.dimension} dimensions",
            "label vectors": config.label_vectors.kind,
            "loss": config.objective.loss.kind,
            "negatives": config.negatives_named,
            "training": "not known"
            if training is None
            else f"{training.steps:,} steps in {training.seconds:,.0f} s, batches of {config.batch_size:,}",
            "seed": str(config.seed),
            "labels": f"{len(run.retriever):,}",
            "index": index.design,
            "stages": ", ".join(stage.name for stage in run.retriever.stages) or "none",
        }

    rows = [row(run, index) for run, index in zip(runs, indexes, strict=True)]
    if not any(run.retriever.stages for run in runs):
        rows = [{name: value for name, value in of_run.items() if name != "stages"} for of_run in rows]
    return [(name, [row[name] for row in rows]) for name in rows[0]]


def metric_table(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Cell]]]:
    """The metrics of each run by name, with differences to the first run."""
    kept = [name for name in runs[0].metrics.values if not name.startswith("R@")]
    kept += [f"R@{k}" for k in (10, 20, 50, 100, 200, 500, 1000) if all(f"R@{k}" in run.metrics.values for run in runs)]
    return [(name, compared([run.metrics.values[name] for run in runs])) for name in kept]


def compared(values: Sequence[float], digits: int = 2) -> list[Cell]:
    """Values beside each other; higher is better."""
    shown = [round(value, digits) for value in values]
    cells = []
    for run, value in enumerate(shown):
        difference = round(value - shown[0], digits)
        cells.append(
            Cell(
                f"{value:.{digits}f}",
                value,
                "" if run == 0 else signed(difference, digits),
                (difference > 0) - (difference < 0),
                len(shown) > 1 and value == max(shown) and value != min(shown),
            )
        )
    return cells


def signed(difference: float, digits: int = 1) -> str:
    """A difference with its sign.

    >>> signed(1.5), signed(-0.04)
    ('+1.5', '±0.0')
    """
    text = f"{difference:+.{digits}f}"
    return f"±{text[1:]}" if not float(text) else text.replace("-", "−")


def decile_table(runs: Sequence[ReportedRun]) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of metrics, and a row for each decile with the cells of each metric and run; none without training counts."""
    deciles = [run.metrics.deciles for run in runs]
    names = [name for name in DECILE_METRICS if deciles[0] and name in deciles[0][0].values]
    rows = []
    for of_runs in zip(*deciles, strict=True):
        decile = of_runs[0]
        low, high = decile.training_counts
        rows.append(
            {
                "name": "none" if decile.decile == 0 else str(decile.decile),
                "decile": decile.decile,
                "labels": decile.labels,
                "counts": f"{low:,}" if low == high else f"{low:,}–{high:,}",
                "positives": decile.positives,
                "cells": [compared([of_run.values[name] for of_run in of_runs]) for name in names],
            }
        )
    return names, rows


def bytes_table(parts: Sequence[dict[str, int]]) -> list[tuple[str, list[Cell]]]:
    """Sizes by part, and in all."""
    with_sums = [{**sizes, "in all": sum(sizes.values())} for sizes in parts]
    return [(name, [Cell(decimal(sizes[name]), sizes[name]) for sizes in with_sums]) for name in with_sums[0]]


def query_rows(
    runs: Sequence[ReportedRun],
    task: Task,
    chosen: dict[int, bool],
    mistakes: Sequence[dict[int, Mistakes]],
    qualities: Sequence[Any],
) -> list[QueryRow]:
    """The queries in the order of `chosen`, see `choose_queries`. mistakes, qualities: of each run, by query."""
    rows = []
    reasons = [reasons_of_predictions(run, task, list(chosen)) for run in runs]
    for number, (query, worst) in enumerate(chosen.items(), 1):
        text = task.texts[query]
        of_query = [of_run[query] for of_run in mistakes]
        rows.append(
            QueryRow(
                number,
                str(task.queries.uids[query].as_py()),
                text[:MOST_CHARACTERS],
                max(0, len(text) - MOST_CHARACTERS),
                worst,
                tuple(_true_label(runs, task, query, label, of_query) for label in task.true_labels(query).tolist()),
                tuple(
                    tuple(_predictions(run, task, query, of_run, said.get(query, {})))
                    for run, of_run, said in zip(runs, of_query, reasons, strict=True)
                ),
                tuple(float(of_run[query]) for of_run in qualities),
                tuple(cause for cause in CAUSES if any(cause in of_run.causes for of_run in of_query)),
            )
        )
    return rows


def _true_label(
    runs: Sequence[ReportedRun], task: Task, query: int, label: int, mistakes: Sequence[Mistakes]
) -> LabelRow:
    counts = task.training_counts
    places = []
    for run, of_run in zip(runs, mistakes, strict=True):
        place = run.by_index.place(query, label)
        missed = next((candidate for candidate in of_run.missed if candidate.label == label), None)
        causes = () if missed is None else tuple(cause for cause in missed.causes if cause != "unseen")
        places.append((_place(run, place, missed), missed is None, causes))
    unseen = counts is not None and not counts[label]
    return LabelRow(
        task.label_texts[label],
        str(task.dataset.labels.uids[label].as_py()),
        "" if counts is None or unseen else f"{counts[label]:,} in training",
        causes=(("unseen", CAUSES["unseen"], ""),) if unseen else (),
        places=tuple(places),
    )


def _place(run: ReportedRun, place: int | None, missed: Missed | None) -> str:
    """Where a true label stands in a run, and by exact search, where that is another place."""
    exact = None if missed is None else missed.exact_place
    if place is None and run.is_exact and exact is not None:
        return f"{exact:,}"
    shown = f"{place:,}" if place is not None else f"> {run.by_index.labels.shape[1]:,}"
    return shown if exact in (None, place) else f"{shown}, exact {exact:,}"


def _predictions(run: ReportedRun, task: Task, query: int, mistakes: Mistakes, said: dict[int, str]) -> list[LabelRow]:
    true = set(task.true_labels(query).tolist())
    wrong_at: dict[int, Wrong] = {wrong.place: wrong for wrong in mistakes.wrong}
    ids = run.by_index.ids[query, :PLACES]
    table = run.retriever.labels
    run_rows = table.rows_of_ids(ids[ids >= 0])
    texts, uids = table.texts_of(run_rows), table.uids_of(ids[ids >= 0])
    rows = []
    for place, (text, uid) in enumerate(zip(texts, uids, strict=True), 1):
        label, score = int(run.by_index.labels[query, place - 1]), float(run.by_index.scores[query, place - 1])
        note = f"{score:.3f}" + (", not in the data set" if label == UNKNOWN_LABEL else "")
        reasons = wrong_at[place].causes if place in wrong_at else {}
        causes = tuple((cause, CAUSES[cause], why) for cause, why in reasons.items())
        why = said.get(int(ids[place - 1]), "")
        rows.append(LabelRow(text, str(uid), note, label in true, place, causes, reasons=why))
    return rows
