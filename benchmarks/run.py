"""Run a benchmark table and append what it measures to results.csv: python benchmarks/run.py TABLE [--seeds 0 1]."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from measurements import Measurement, append
from rich.console import Console
from rich.table import Table

from xmc.errors import XMCError

TABLES = (
    "lf_wordnet",
    "wordnet_8k",
    "training",
    "distributed",
    "losses",
    "topk",
    "encode",
    "search",
    "training_memory",
    "metrics_speed",
    "live",
    "filters",
    "vixml",
    "batch",
    "calibration",
    "rerank",
    "labels",
    "passages",
    "memory",
    "light",
    "serve",
    "soak",
    "imperfect",
    "federated",
)
"""Each is a module beside this one, with run(seed, methods) -> iterator over lists of measurements."""

OPTIONS = ("gpu", "sizes", "epochs", "small", "hours", "labels")
"""Options that are arguments of a table's `run`, where it has such."""


def main() -> int:
    """Run the table named on the command line; measurements are saved method by method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=[], help="beginnings of the names of methods; default: all")
    parser.add_argument("--gpu", action="store_true", help="training, vixml, encode, losses, topk, search: for a GPU")
    parser.add_argument(
        "--sizes", nargs="+", default=[], metavar="SIZE", help="losses, topk: these, as text; see README"
    )
    parser.add_argument("--epochs", type=int, help="training, vixml: in place of the configurations' own number")
    parser.add_argument("--small", action="store_true", help="encode, training, vixml, search, with --gpu: on a CPU")
    parser.add_argument("--hours", type=float, help="soak: how long, in place of an hour")
    parser.add_argument(
        "--labels", type=int, help="soak: how many labels, in place of a million; up to 8,000 need no data"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results.csv")
    parser.add_argument("--titles", type=int, help="search, live, filters, batch: only so many of the million titles")
    arguments = parser.parse_args()
    run = importlib.import_module(arguments.table).run
    if arguments.epochs is not None and arguments.epochs < 1:
        parser.error(f"--epochs is {arguments.epochs}; it must be 1 or more.")
    for name in ("hours", "labels"):
        if getattr(arguments, name) is not None and not getattr(arguments, name) > 0:
            parser.error(f"--{name} is {getattr(arguments, name)}; it must be above 0.")
    if arguments.small and not arguments.gpu:
        parser.error("--small tries out what --gpu runs; add --gpu.")
    options = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name)}
    unknown = options.keys() - inspect.signature(run).parameters
    if unknown:
        parser.error(f"{arguments.table} takes no --{min(unknown)}.")
    if arguments.gpu and not arguments.small and not torch.cuda.is_available():
        parser.error("--gpu needs a CUDA device, and torch finds none.")
    suffix = ""
    if arguments.titles:
        os.environ["XMC_TITLES"], suffix = str(arguments.titles), f", {arguments.titles:,} titles"
    console = Console()
    measured = 0
    try:
        for seed in arguments.seeds:
            for measured_rows in run(seed, arguments.methods, **options):
                measurements = [replace(one, method=one.method + suffix) for one in measured_rows]
                append(arguments.results, measurements)
                console.print(_show(measurements))
                measured += len(measurements)
    except XMCError as error:
        print(error, file=sys.stderr)
        return 2
    if not measured:
        print(f"No method of {arguments.table} was run; see --methods.", file=sys.stderr)
        return 2
    print(f"{measured} measurements appended to {arguments.results}")
    return 0


def _show(measurements: list[Measurement]) -> Table:
    first = measurements[0]
    table = Table(title=f"{first.table}: {first.method}, seed {first.seed}")
    for column in ("metric", "value", "p20", "p80", "unit"):
        table.add_column(column, justify="left" if column in ("metric", "unit") else "right")
    for one in measurements:
        table.add_row(one.metric, *(_number(value) for value in (one.value, one.p20, one.p80)), one.unit)
    return table


def _number(value: float | None) -> str:
    """Two digits behind the point, five of what is below ten."""
    if value is None:
        return ""
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.5f}"


if __name__ == "__main__":
    sys.exit(main())
