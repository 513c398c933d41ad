"""`xmc index`: index a run's label embeddings anew, with a design that is named or found by measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from xmc.cli import complete
from xmc.cli.console import console, say
from xmc.cli.devices import Device, opened
from xmc.cli.job_options import Delimiter, Encoding, MaxLine, Text
from xmc.cli.next_commands import after_new_index
from xmc.cli.texts import require_no_columns, texts_of
from xmc.cli.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from xmc.batch import Columns
    from xmc.indexes.tuning import Goal, OperatingPoint, Tuned
    from xmc.search.retriever import Retriever


def index(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    design: Annotated[
        str,
        typer.Argument(
            help='"auto" (exact below 20,000 labels, a scan of short codes below 100,000, tuned above), "exact", a storage '
            "(float16, int8, binary), or a FAISS factory string such as HNSW32 or IVF256,Flat.",
            autocompletion=complete.designs,
        ),
    ] = "auto",
    recall: Annotated[
        float | None, typer.Option(help="Tune, whatever the number of labels, for this share of the k best labels.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="Labels that the recall is about.")] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(help="Memory of the index without embeddings on disk, such as 2GB; on a GPU, of the GPU."),
    ] = None,
    metric: Annotated[
        Literal["throughput", "latency"] | None,
        typer.Option(help="What to make best: throughput in batches, or latency of one query."),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for tuning, such as 10m.")] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            help="Data set, or file of texts, to tune with; by default what training held out.",
            show_default=False,
            autocompletion=complete.data_sets,
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of that data set.", autocompletion=complete.splits)] = "test",
    text_column: Text = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    max_line: MaxLine = None,
    rescore: Annotated[
        int, typer.Option(min=0, help="With a named design: candidates, in multiples of k, ordered by exact scores.")
    ] = 0,
    dimension: Annotated[
        int | None, typer.Option(min=1, help="Cut embeddings to this many numbers, of a run with nested dimensions.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory to write; the same one by default.")] = None,
    device: Device = "auto",
) -> None:
    """Build another index over the same label embeddings and save the run with it.

    Tuning that is stopped goes on after the designs already measured when the command is given again.
    """
    from xmc.batch import Columns
    from xmc.errors import ConfigError
    from xmc.indexes.designs import is_exact
    from xmc.search.run_directory import RunDirectory

    goals = {
        "recall": recall,
        "k": k,
        "max_memory": None if max_memory is None else parse_bytes(max_memory, "--max-memory"),
        "metric": metric,
        "budget": None if budget is None else parse_seconds(budget, "--budget"),
    }
    wanted = {name: value for name, value in goals.items() if value is not None}
    if design != "auto" and (wanted or queries):
        named = next(iter(wanted), "queries").replace("_", "-")
        raise ConfigError(f"--{named} is for tuning, which chooses the design: leave {design!r} out, or the option.")
    if design == "auto" and rescore:
        raise ConfigError("--rescore is for a design that is named; tuning chooses it.")
    columns = Columns(text=text_column, encoding=encoding, delimiter=delimiter, max_line=max_line)
    if queries is None:
        require_no_columns(columns, None)
    in_place = out is None or out.resolve() == run.resolve()
    if dimension is not None and in_place:
        raise ConfigError("--dimension changes the model; name another directory with --out.")
    RunDirectory(out or run).require_free(overwrite=in_place)
    retriever = opened(run, device)
    if dimension is not None:
        retriever = retriever.cut(dimension, "exact")
    if design == "auto" and (wanted or queries or not is_exact(design, len(retriever))):
        _tune(retriever, run, wanted, queries, split, columns)
    else:
        _build(retriever, design, rescore)
    retriever.save(out or run, overwrite=in_place)
    _journal(run).unlink(missing_ok=True)
    say(f"run with this index in {out or run}")
    if retriever.calibration is not None:
        source = retriever.calibration.source
        say(
            f"its calibration is for the index before; calibrate again, on the split {source.split} of {source.dataset}"
        )
        if command := after_new_index(out or run, retriever.calibration):
            say(f"next: {command}")


def _build(retriever: Retriever, design: str, rescore: int) -> None:
    """Index by a design that is known; what it takes is said before."""
    import time

    from xmc.indexes.designs import bytes_per_label

    labels, named = len(retriever), design
    if design == "auto":
        named = "exact"
        say(f"{labels:,} labels are searched exactly; --recall tunes all the same")
    size = bytes_per_label(named, retriever.model.dimension, labels)
    say(f"{named}: {size:,.0f} bytes a label, {decimal(round(size * labels))} in all")
    start = time.perf_counter()
    retriever.reindex(design, rescore)
    say(f"indexed {labels:,} labels in {time.perf_counter() - start:.1f} s")


def _tune(
    retriever: Retriever, run: Path, wanted: dict[str, Any], source: str | None, split: str, columns: Columns
) -> None:
    """Index by the design that measures best."""
    from xmc.indexes.tuning import Goal, tune
    from xmc.progress import progress

    goal = Goal(**wanted)
    if source is None:
        queries = retriever.tuning_queries
    else:
        queries = retriever.embed_queries(texts_of(source, split, run, columns))
    with progress(f"tuning the index, {goal.budget:.0f} s at most") as line:
        labels = retriever.labels
        devices = labels.index.devices or "cpu"
        tuned = tune(labels.embeddings, labels.ids, queries, goal, _journal(run), line.say, devices)
    console.print(_table(tuned, goal, len(queries)))
    retriever.use_index(tuned.index)


def _journal(run: Path) -> Path:
    run = run.resolve()
    return run.with_name(f"{run.name}.tuning.jsonl")


def _table(tuned: Tuned, goal: Goal, queries: int) -> Table:
    from xmc.indexes.tuning import pareto

    # Fits 80 columns with the longest of the designs that are tried.
    table = Table(
        title=f"Designs that no other beats in recall, speed and memory\nmeasured on {queries:,} queries; ▸ is chosen",
        caption=f"goal: recall@{goal.k} {goal.recall}, {goal.metric}",
        box=None,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("design")
    for name in (f"recall\n@{goal.k}", "p50\nms", "p99\nms", "queries\n/second", "bytes\n/label", "build\ns"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in pareto(tuned.points):
        chosen = point == tuned.chosen
        numbers = (
            f"{point.recall:.4f}",
            f"{point.latency_p50:.2f}",
            f"{point.latency_p99:.2f}",
            f"{point.throughput:,.0f}",
            f"{point.bytes_per_label:,.0f}",
            f"{point.build:,.0f}",
        )
        where = "" if point.device == "cpu" else f" on {point.device}"
        name = f"{'▸' if chosen else ' '} {point.design}{where}\n    {_settings(point)}".rstrip()
        table.add_row(escape(name), *numbers, style="bold" if chosen else None)
    return table


def _settings(point: OperatingPoint) -> str:
    settings = [f"{name}={value:g}" for name, value in point.parameters.items()]
    if point.rescore:
        settings.append(f"rescore={point.rescore}")
    return " ".join(settings)
