"""The one HTML page: tables by a template, figures and scripts inside of it, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from xmc.report import figures
from xmc.report.calibrated import (
    COUNTED,
    MOST_QUERIES,
    POLICY,
    Measured,
    count_of_sets,
    measure,
    notices,
)
from xmc.report.curves import calibration, training_curves
from xmc.report.mistakes import CAUSES, MISSED_CAUSES, Judge, choose_queries, count_causes, judged_sample, quality
from xmc.report.run import PLACES, ReportedRun
from xmc.report.sorting import RARE, SAME, WRONG_CAUSES
from xmc.report.storage import IndexFacts, bytes_in_memory, describe_index
from xmc.report.tables import bytes_table, compared, decile_table, facts_table, metric_table, query_rows, signed
from xmc.report.task import Task
from xmc.report.texts import NEARLY, SHORTEST, cut
from xmc.shown import visible
from xmc.version import __version__

__all__ = ["embedded_json", "render"]

HERE = Path(__file__).parent
DECILE_PLOTS = ("P@5", "PSP@5", "R@10", "R@100")
AGREEMENT = 10


def render(runs: Sequence[ReportedRun], task: Task, k: int, queries: int) -> str:
    """The page, as text. queries: number of queries that it shows."""
    indexes = [describe_index(run) for run in runs]
    disk, memory = [run.disk for run in runs], [bytes_in_memory(run) for run in runs]
    calibrated = [measure(run, task) for run in runs]
    plots = _plots(runs, task, indexes, disk, memory) | _calibrated_plots([run.name for run in runs], calibrated)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": cut, "count_of_sets": count_of_sets}
    return environment.get_template("template.html").render(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
        figures=Markup(embedded_json(plots)),
        plots=plots,
        version=__version__,
        names=[run.name for run in runs],
        runs=runs,
        task=task,
        k=k,
        notices=_notices(runs, task),
        facts=facts_table(runs, indexes),
        metrics=metric_table(runs),
        deciles=decile_table(runs),
        decile_plots=[name for name in DECILE_PLOTS if f"decile {name}" in plots],
        calibrated=[(run, measured) for run, measured in enumerate(calibrated) if measured],
        calibration_notices=notices(runs, calibrated, task),
        measured_queries=min(len(task.queries), MOST_QUERIES),
        counted_queries=min(len(task.queries), COUNTED),
        policy=POLICY,
        validation=_validation_metric(runs),
        indexes=_index_rows(runs, indexes),
        points=[
            (name, point, point == index.chosen)
            for name, index in zip(range(len(runs)), indexes, strict=True)
            for point in index.points
        ],
        disk=bytes_table(disk),
        memory=bytes_table(memory),
        nearly=NEARLY,
        shortest=SHORTEST,
        same=SAME,
        rare=RARE,
        places=PLACES,
        difference=signed,
        agreement=AGREEMENT,
        cause_names=CAUSES,
        missed_causes=MISSED_CAUSES,
        wrong_causes=WRONG_CAUSES,
        **_browsed(runs, task, queries),
    )


def embedded_json(value: Any) -> str:
    """JSON that can stand in a script element: no letter of it ends the element, or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _shown(value: Any) -> Any:
    """Whatever the template shows: text without control characters and overrides of direction, which browsers obey too."""
    return visible(value, "\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _plots(
    runs: Sequence[ReportedRun],
    task: Task,
    indexes: Sequence[IndexFacts],
    disk: Sequence[dict[str, int]],
    memory: Sequence[dict[str, int]],
) -> dict[str, figures.Figure]:
    """Figures by the id of their place in the page; those that have something to show."""
    names, metrics = [run.name for run in runs], [run.metrics for run in runs]
    plots = {}
    for metric in DECILE_PLOTS:
        if all(of_run.deciles and metric in of_run.deciles[0].values for of_run in metrics):
            plots[f"decile {metric}"] = figures.decile_bars(names, metrics, metric)
    exact = [None if run.is_exact else run.exact_metrics for run in runs]
    plots["recall"] = figures.recall_curve(names, metrics, exact)
    for places in (1, 5):
        plots[f"calibration {places}"] = figures.calibration_plot(
            names, [calibration(run, task, places) for run in runs]
        )
    logs = [training_curves(run.log) for run in runs]
    validated = _validation_metric(runs)
    curves = {
        "loss": [log.loss for log in logs],
        f"{validated} of held-out queries": [log.validation.get(validated, []) for log in logs],
        "learning rate": [log.learning_rate for log in logs],
    }
    for title, points in curves.items():
        if any(points):
            plots[f"training {title}"] = figures.steps_plot(names, points, title)
    if any(index.points for index in indexes):
        ks = sorted({index.goal_k for index in indexes if index.points})
        plots["pareto"] = figures.pareto_plot(
            names, [index.points for index in indexes], [index.chosen for index in indexes], " or ".join(map(str, ks))
        )
    plots["bytes on disk"] = figures.bars_of_bytes(names, disk, "on disk, MB")
    plots["bytes in memory"] = figures.bars_of_bytes(names, memory, "in memory, MB")
    return plots


def _calibrated_plots(names: Sequence[str], calibrated: Sequence[Measured | None]) -> dict[str, figures.Figure]:
    """Figures of what calibrated runs promise and what was found; none without such runs."""
    if not any(calibrated):
        return {}
    plots = {
        "reliability 1": figures.reliability_plot(names, [run.first if run else None for run in calibrated]),
        "reliability 5": figures.reliability_plot(names, [run.first_five if run else None for run in calibrated]),
    }
    for place, checks_of, x, y in (
        ("guarantee recall", Measured.recall_checks, "guaranteed recall, percent", "recall found, percent"),
        ("guarantee region", Measured.region_checks, "guaranteed share, percent", "true sets inside, percent"),
    ):
        checks = [checks_of(measured) if measured else [] for measured in calibrated]
        if any(checks):
            plots[place] = figures.coverage_plot(names, checks, x, y)
    error = "calibration error, percent"
    for place, bars_of, x, y, mark in (
        ("error by rank", Measured.errors_by_rank, "rank", error, "floor"),
        ("error by frequency", Measured.errors_by_frequency, "training queries of the label", error, "floor"),
        ("set sizes", Measured.mean_sizes, "guaranteed recall", "labels a set, mean", "fixed k"),
    ):
        bars = [bars_of(measured) if measured else [] for measured in calibrated]
        if any(bars):
            plots[place] = figures.marked_bars(names, bars, x, y, mark)
    return plots


def _browsed(runs: Sequence[ReportedRun], task: Task, queries: int) -> dict[str, Any]:
    """The queries that the page shows, and how often mistakes have each cause."""
    qualities = [quality(run, task) for run in runs]
    confidence = np.mean([run.by_index.scores[:, 0] for run in runs], axis=0)
    chosen = choose_queries(np.mean(qualities, axis=0), confidence, queries)
    judgeable = np.flatnonzero(task.positives)
    sample = judged_sample(task)
    judge = Judge(task, {*sample, *chosen})
    mistakes = [judge.mistakes(run, chosen) for run in runs]
    counts = [count_causes(of_run[query] for query in sample) for of_run in mistakes]
    return {
        "rows": query_rows(runs, task, chosen, mistakes, qualities),
        "judged": len(sample),
        "judgeable": len(judgeable),
        "cause_counts": counts,
    }


def _index_rows(runs: Sequence[ReportedRun], indexes: Sequence[IndexFacts]) -> list[dict[str, Any]]:
    """The index of each run, and what it loses on the task."""
    return [
        {
            "facts": facts,
            "is_exact": run.is_exact,
            "agreement": 100 * run.agreement(AGREEMENT),
            "metrics": [
                (name, compared([run.exact_metrics.values[name], run.metrics.values[name]])[1])
                for name in ("P@1", "P@5", "R@10")
            ],
        }
        for run, facts in zip(runs, indexes, strict=True)
    ]


def _validation_metric(runs: Sequence[ReportedRun]) -> str:
    return runs[0].retriever.config.validation.metric


def _notices(runs: Sequence[ReportedRun], task: Task) -> list[str]:
    """What a reader must know before comparing: other data, labels that are not there."""
    notices = []
    for run in runs:
        training = run.retriever.metrics.training
        if training is not None and training.dataset_fingerprint not in ("", task.dataset.fingerprint):
            notices.append(
                f"{run.name} was trained on {training.dataset}, whose content is not that of this data set "
                f"({task.dataset.name}): label frequencies, and what is called unseen in training, are this data set's."
            )
        missing = len(task.dataset.labels) - len(run.run_rows)
        if missing:
            notices.append(
                f"{run.name} lacks {missing:,} of the data set's {len(task.dataset.labels):,} labels, which count as missed."
            )
        more = len(run.retriever) - len(run.run_rows)
        if more:
            notices.append(
                f"{run.name} has {more:,} labels that the data set does not, which count as wrong predictions."
            )
    without = int((task.positives == 0).sum())
    if without:
        notices.append(
            f"{without:,} queries have no true label; they count as 0 in the metrics, and are not shown below."
        )
    if task.training is None:
        notices.append("The data set has no training split: there are no propensities, and no label frequencies.")
    return notices
