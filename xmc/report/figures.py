"""The plots, as plotly figures. Colours come from the page, by the run that a trace is of, so that they suit its scheme."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from xmc.calibration.drift import Check
from xmc.calibration.reliability import Reliability
from xmc.indexes.tuning import OperatingPoint
from xmc.metrics import Metrics
from xmc.report.curves import Points, ScoreBin
from xmc.shown import visible

__all__ = [
    "INK",
    "Bar",
    "bars_of_bytes",
    "calibration_plot",
    "coverage_plot",
    "decile_bars",
    "marked_bars",
    "pareto_plot",
    "recall_curve",
    "reliability_plot",
    "steps_plot",
]

Figure = dict[str, Any]
Bar = tuple[str, float, float, str]
"""A bar's position, its height, the height of its mark, and a note about it."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
PATTERNS = ("", "/", "x", ".", "-", "+")
INK = -1
"""In place of a run's number, for what is drawn in the colour of text."""
NAME = "<extra>%{fullData.name}</extra>"
HEIGHT = 300


def decile_bars(names: Sequence[str], metrics: Sequence[Metrics], metric: str) -> Figure:
    """Bars of a metric by label-frequency decile, one for each run."""
    traces = []
    for run, (name, of_run) in enumerate(zip(names, metrics, strict=True)):
        facts = [
            f"{decile.labels:,} labels, {_between(decile.training_counts)} training queries each, "
            f"{decile.positives:,} true pairs"
            for decile in of_run.deciles
        ]
        traces.append(
            go.Bar(
                x=["none" if decile.decile == 0 else str(decile.decile) for decile in of_run.deciles],
                y=[round(decile.values[metric], 4) for decile in of_run.deciles],
                customdata=facts,
                hovertemplate="%{y:.2f}<br>%{customdata}" + NAME,
                marker={"pattern": {"shape": _of(PATTERNS, run), "size": 5, "solidity": 0.25}},
                **_run(name, run),
            )
        )
    figure = _figure(traces, "label frequency, rare to frequent", f"{metric}, percent")
    figure.update_xaxes(type="category", tickangle=0)
    figure.update_layout(barmode="group", bargap=0.25)
    return _plain(figure)


def recall_curve(names: Sequence[str], metrics: Sequence[Metrics], exact: Sequence[Metrics | None]) -> Figure:
    """R@k over k; by exact search too where the index is not exact."""
    traces = []
    for run, name in enumerate(names):
        pairs = ((metrics[run], name, _of(DASHES, run)), (exact[run], f"{name}, exact search", "dot"))
        for searched, title, dash in pairs:
            if searched is None:
                continue
            ks = sorted(int(key[2:]) for key in searched.values if key.startswith("R@"))
            traces.append(
                go.Scatter(
                    x=ks,
                    y=[round(searched.values[f"R@{k}"], 4) for k in ks],
                    mode="lines",
                    line={"dash": dash, "width": 2.25 if title == name else 1.25},
                    hovertemplate="R@%{x}: %{y:.2f}" + NAME,
                    **_run(title, run),
                )
            )
    figure = _figure(traces, "k", "R@k, percent")
    figure.update_xaxes(type="log", tickvals=[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
    return _plain(figure)


def calibration_plot(names: Sequence[str], bins: Sequence[Sequence[ScoreBin]]) -> Figure:
    """Share of hits over the score."""
    points = [[(round(bin.score, 5), bin.hits, f"{bin.predictions:,}") for bin in of_run] for of_run in bins]
    figure = _of_bins(names, points, "score %{x:.3f}", "cosine similarity, mean of a bin")
    figure.update_yaxes(range=[0, 102])
    return _plain(figure)


def reliability_plot(names: Sequence[str], reliabilities: Sequence[Reliability | None]) -> Figure:
    """Share of hits over the probability, and the diagonal, on which they are equal; None for a run without probabilities."""
    points = [
        [(round(100 * bin.probability, 4), bin.true, f"{bin.predictions:,}") for bin in (of_run.bins if of_run else ())]
        for of_run in reliabilities
    ]
    figure = _of_bins(names, points, "probability %{x:.1f}%", "probability, percent, mean of a bin")
    return _plain(_with_diagonal(figure, 0, 100))


def coverage_plot(names: Sequence[str], checks: Sequence[Sequence[Check]], x: str, y: str) -> Figure:
    """What the queries gave over what is guaranteed, with bounds; a guarantee holds on the diagonal and above it."""
    traces = []
    for run, (name, of_run) in enumerate(zip(names, checks, strict=True)):
        if of_run:
            traces.append(
                go.Scatter(
                    x=[round(100 * check.nominal, 4) for check in of_run],
                    y=[round(100 * check.found, 4) for check in of_run],
                    error_y={
                        "array": [round(100 * (check.high - check.found), 4) for check in of_run],
                        "arrayminus": [round(100 * (check.found - check.low), 4) for check in of_run],
                        "width": 5,
                        "thickness": 1.5,
                    },
                    customdata=[f"{check.low:.1%} to {check.high:.1%}" for check in of_run],
                    mode="markers",
                    marker={"symbol": _of(SYMBOLS, run), "size": 8},
                    hovertemplate="%{x:g}% guaranteed: %{y:.1f}% found, %{customdata}" + NAME,
                    **_run(name, run),
                )
            )
    lowest = min(min(check.nominal, check.low) for of_run in checks for check in of_run)
    return _plain(_with_diagonal(_figure(traces, x, y), 100 * lowest - 2, 100))


def marked_bars(names: Sequence[str], bars: Sequence[Sequence[Bar]], x: str, y: str, mark: str) -> Figure:
    """Bars of each run, and across each bar a mark, which is called `mark`, at a height that it is compared with."""
    traces: list[Any] = []
    for run, (name, of_run) in enumerate(zip(names, bars, strict=True)):
        if of_run:
            positions, heights, marks, notes = zip(*of_run, strict=True)
            group = {"x": positions, "customdata": notes, "offsetgroup": str(run)}
            traces.append(
                go.Bar(
                    y=[round(height, 4) for height in heights],
                    hovertemplate="%{y:.2f}<br>%{customdata}" + NAME,
                    marker={"pattern": {"shape": _of(PATTERNS, run), "size": 5, "solidity": 0.25}},
                    **group,
                    **_run(name, run),
                )
            )
            traces.append(
                go.Scatter(
                    y=[round(height, 4) for height in marks],
                    mode="markers",
                    marker={"symbol": "line-ew-open", "size": 6 + 10 / len(bars), "line": {"width": 2.5}},
                    hovertemplate=f"{mark} %{{y:.4g}}<br>%{{customdata}}" + NAME,
                    **group,
                    **(_run(name, run) | {"meta": INK}),
                )
            )
    figure = _figure(traces, x, y)
    figure.update_xaxes(type="category")
    figure.update_layout(barmode="group", bargap=0.25, scattermode="group", scattergap=0.25)
    return _plain(figure)


def steps_plot(names: Sequence[str], curves: Sequence[Points], title: str) -> Figure:
    """A value over training steps."""
    traces = [
        go.Scatter(
            x=[step for step, _ in points],
            y=[float(f"{value:.6g}") for _, value in points],
            mode="lines+markers" if len(points) <= 20 else "lines",
            line={"dash": _of(DASHES, run), "width": 1.75},
            marker={"symbol": _of(SYMBOLS, run), "size": 6},
            hovertemplate="step %{x}: %{y:.4g}" + NAME,
            **_run(name, run),
        )
        for run, (name, points) in enumerate(zip(names, curves, strict=True))
        if points
    ]
    figure = _figure(traces, "training step", title)
    if title == "learning rate":
        figure.update_yaxes(exponentformat="e", rangemode="tozero")
    return _plain(figure)


def pareto_plot(
    names: Sequence[str], points: Sequence[Sequence[OperatingPoint]], chosen: Sequence[OperatingPoint | None], k: str
) -> Figure:
    """Queries a second over recall; the design that was taken is a star."""
    traces = []
    for run, name in enumerate(names):
        for shown, symbol, size in (
            ([point for point in points[run] if point != chosen[run]], _of(SYMBOLS, run), 9),
            ([chosen[run]] if chosen[run] is not None else [], "star", 16),
        ):
            if not shown:
                continue
            kept = [point for point in shown if point is not None]
            traces.append(
                go.Scatter(
                    x=[round(100 * point.recall, 4) for point in kept],
                    y=[round(point.throughput, 1) for point in kept],
                    customdata=[
                        [
                            html.escape(visible(point.design)),
                            f"{point.bytes_per_label:,.0f}",
                            f"{point.latency_p99:.2f}",
                        ]
                        for point in kept
                    ],
                    mode="markers",
                    marker={"symbol": symbol, "size": size},
                    hovertemplate="%{customdata[0]}<br>recall %{x:.2f}%, %{y:,.0f} queries/s<br>"
                    "%{customdata[1]} bytes a label, p99 %{customdata[2]} ms" + NAME,
                    **_run(name, run),
                )
            )
    figure = _figure(traces, f"recall@{k}, percent", "queries a second")
    rates = [point.throughput for of_run in points for point in of_run]
    ticks = [first * 10**power for power in range(12) for first in (1, 2, 5)]
    ticks = [tick for tick in ticks if min(rates) / 2 <= tick <= 2 * max(rates)]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
    return _plain(figure)


def bars_of_bytes(names: Sequence[str], parts: Sequence[dict[str, int]], title: str) -> Figure:
    """Megabytes of each part, one bar for each run."""
    traces = [
        go.Bar(
            y=list(sizes),
            x=[round(size / 1e6, 4) for size in sizes.values()],
            orientation="h",
            hovertemplate="%{y}: %{x:,.2f} MB" + NAME,
            marker={"pattern": {"shape": _of(PATTERNS, run), "size": 5, "solidity": 0.25}},
            **_run(name, run),
        )
        for run, (name, sizes) in enumerate(zip(names, parts, strict=True))
    ]
    figure = _figure(traces, title, "")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return _plain(figure)


def _of_bins(
    names: Sequence[str], points: Sequence[Sequence[tuple[float, float, str]]], hover: str, x: str
) -> go.Figure:
    """Lines through bins of predictions: their position, the share of them that is true, and their number."""
    traces = []
    for run, (name, of_run) in enumerate(zip(names, points, strict=True)):
        if of_run:
            positions, hits, predictions = zip(*of_run, strict=True)
            traces.append(
                go.Scatter(
                    x=positions,
                    y=[round(100 * share, 4) for share in hits],
                    customdata=predictions,
                    mode="lines+markers",
                    line={"dash": _of(DASHES, run)},
                    marker={"symbol": _of(SYMBOLS, run), "size": 7},
                    hovertemplate=hover + ": %{y:.1f}% true, of %{customdata} predictions" + NAME,
                    **_run(name, run),
                )
            )
    return _figure(traces, x, "true, percent")


def _with_diagonal(figure: go.Figure, low: float, high: float) -> go.Figure:
    """The line on which both axes say the same."""
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, layer="below", line={"width": 1, "dash": "dot"})
    figure.update_xaxes(range=[low - 2, high + 2])
    figure.update_yaxes(range=[low - 2, high + 2])
    return figure


def _run(name: str, run: int) -> dict[str, Any]:
    """What the page tells a trace's run by. plotly reads a little HTML in names, which a run's name is not."""
    return {"name": html.escape(visible(name)), "meta": run}


def _of(values: Sequence[str], run: int) -> str:
    return values[run % len(values)]


def _figure(traces: list[Any], x: str, y: str) -> go.Figure:
    layout = {
        "template": "none",
        "height": HEIGHT,
        "margin": {"l": 52, "r": 12, "t": 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"namelength": -1, "align": "left"},
        "xaxis": {"title": {"text": x, "standoff": 8}, "zeroline": False, "automargin": True},
        "yaxis": {"title": {"text": y, "standoff": 8}, "zeroline": False, "automargin": True},
    }
    return go.Figure(traces, layout)


def _plain(figure: go.Figure) -> Figure:
    plain: Figure = figure.to_plotly_json()
    return plain


def _between(counts: tuple[int, int]) -> str:
    low, high = counts
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
