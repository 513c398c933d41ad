"""`xmc index`: index a run's label embeddings anew, with a design that is named or found by measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from xmc.cli.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from xmc.indexes.base import LabelIndex
    from xmc.indexes.tuning import Goal, OperatingPoint, Tuned
    from xmc.retriever import Retriever

console = Console()


def index(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    design: Annotated[
        str,
        typer.Argument(
            help='"auto" (exact below 50,000 labels, tuned above), "exact", a storage (float16, int8, binary), or a FAISS '
            "factory string such as HNSW32 or IVF256,Flat."
        ),
    ] = "auto",
    recall: Annotated[
        float | None, typer.Option(help="Tune, whatever the number of labels, for this share of the k best labels.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="Labels that the recall is about.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Memory of the index without embeddings on disk, such as 2GB.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help='What to make best: "throughput" in batches, or "latency" of one query.')
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for tuning, such as 10m.")] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            help="Data set, or Parquet file with a column text, to tune with; by default what training held out."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of that data set.")] = "test",
    rescore: Annotated[
        int, typer.Option(min=0, help="With a named design: candidates, in multiples of k, ordered by exact scores.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory to write; the same one by default.")] = None,
) -> None:
    """Build another index over the same label embeddings and save the run with it.

    Tuning that is stopped goes on after the designs already measured when the command is given again.
    """
    from xmc.errors import ConfigError
    from xmc.retriever import Retriever

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
    retriever = Retriever.load(run)
    if design == "auto":
        built = _automatic(retriever, run, wanted, queries, split)
    else:
        built = _named(retriever, design, rescore)
    retriever.use_index(built)
    retriever.save(out or run, overwrite=out is None or out == run)
    _journal(run).unlink(missing_ok=True)
    console.print(f"run with this index in {out or run}", highlight=False, soft_wrap=True)


def _named(retriever: Retriever, design: str, rescore: int) -> LabelIndex:
    import time

    from xmc.indexes.designs import bytes_per_label
    from xmc.indexes.factory import build_index

    labels, dimension = len(retriever), retriever.model.dimension
    size = bytes_per_label(design, dimension, labels)
    console.print(
        f"{design}: {size:,.0f} bytes a label, {decimal(round(size * labels))} in all",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    start = time.perf_counter()
    built = build_index(design, dimension, rescore)
    built.build(retriever.embeddings, retriever.index.ids)
    seconds = time.perf_counter() - start
    console.print(
        f"indexed {labels:,} labels as {design} in {seconds:.1f} s", highlight=False, markup=False, soft_wrap=True
    )
    return built


def _automatic(retriever: Retriever, run: Path, wanted: dict[str, Any], source: str | None, split: str) -> LabelIndex:
    from xmc.indexes.designs import EXACT_BELOW
    from xmc.indexes.exact import ExactIndex
    from xmc.indexes.progress import tuning_progress
    from xmc.indexes.tuning import Goal, tune

    if not wanted and len(retriever) < EXACT_BELOW:
        console.print(f"{len(retriever):,} labels are searched exactly; --recall tunes all the same", highlight=False)
        exact = ExactIndex(retriever.model.dimension)
        exact.adopt(retriever.index.snapshot())
        return exact
    goal = Goal(**wanted)
    queries = retriever.tuning_queries if source is None else retriever.embed_queries(_texts(source, split))
    with tuning_progress(goal.budget) as report:
        tuned = tune(retriever.embeddings, retriever.index.ids, queries, goal, _journal(run), report)
    console.print(_table(tuned, goal, len(queries)))
    return tuned.index


def _journal(run: Path) -> Path:
    return run.parent / f"{run.name}.tuning.jsonl"


def _texts(source: str, split: str) -> list[str]:
    """Query texts of a Parquet file, or of a data set's split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from xmc.data.dataset import Dataset
    from xmc.errors import DataError

    if not Path(source).is_file():
        return [str(text) for text in Dataset.load(source).split(split).texts.to_pylist()]
    try:
        column = pq.read_table(source, columns=["text"])["text"]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{source} cannot be read as Parquet with a column text: {error}") from error
    return [text or "" for text in column.cast(pa.string()).to_pylist()]


def _table(tuned: Tuned, goal: Goal, queries: int) -> Table:
    from xmc.indexes.tuning import pareto

    table = Table(
        title=f"Designs that no other beats in recall, speed and memory, on {queries:,} queries; ▸ is chosen",
        caption=f"goal: recall@{goal.k} {goal.recall}, {goal.metric}",
        box=None,
    )
    table.add_column("design", overflow="fold")
    for name in (f"recall@{goal.k}", "p50 ms", "p99 ms", "queries/s", "bytes/label", "build s"):
        table.add_column(name, justify="right")
    for point in pareto(tuned.points):
        chosen = point == tuned.chosen
        latencies = ("" if value != value else f"{value:.2f}" for value in (point.latency_p50, point.latency_p99))
        numbers = (f"{point.throughput:,.0f}", f"{point.bytes_per_label:,.0f}", f"{point.build:.0f}")
        name = ("▸ " if chosen else "  ") + _name(point)
        recall = f"{point.recall:.4f}"
        table.add_row(escape(name), recall, *latencies, *numbers, style="bold" if chosen else None)
    return table


def _name(point: OperatingPoint) -> str:
    settings = [f"{name}={value:g}" for name, value in point.parameters.items()]
    if point.rescore:
        settings.append(f"rescore={point.rescore}")
    return " ".join([point.design, *settings])
