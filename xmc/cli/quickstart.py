"""`xmc quickstart`: the whole engine on the shipped data set, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from xmc.cli.console import console, say, shell
from xmc.terminal import cell

if TYPE_CHECKING:
    from xmc.data.dataset import Dataset
    from xmc.evaluation.evaluated import Evaluation
    from xmc.search.retriever import Retriever

DATASET = "wordnet-8k"
METRICS = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@1", "PSP@5", "R@100")
EXAMPLES = 5


def quickstart(
    out: Annotated[Path, typer.Option(help="Run directory to write; a run that is there is replaced.")] = Path(
        "runs/quickstart"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
) -> None:
    """Train the default encoder on the shipped data set, index its labels, evaluate, and show some predictions."""
    from xmc.config import TrainConfig
    from xmc.data.dataset import Dataset
    from xmc.evaluation.evaluate import evaluate
    from xmc.search.retriever import Retriever
    from xmc.training.trainer import train

    data = Dataset.load(DATASET)
    console.print(
        f"{data.name}: {len(data.split('train')):,} training queries, {len(data.labels):,} labels, "
        f"{len(data.split('test')):,} test queries. From the definition of a thing, find the concepts it belongs to."
    )
    result = train(data, TrainConfig(seed=seed), out, overwrite=True)
    if result.interrupted:
        say(f"interrupted after {result.steps} steps; what was learned so far is in {out}")
    retriever = Retriever.load(out)
    evaluation = evaluate(retriever, data)
    console.print(_results(evaluation, result.seconds, _peers()))
    console.print(_examples(retriever, data))
    say(f"The run is in {out}. Next: ask it something of your own,")
    say(f'    {shell("xmc", "search", out)} "a boat with two hulls"')
    say("or train on your own data, which this reads:")
    say("    xmc data convert --help")


def _results(evaluation: Evaluation, seconds: float, peers: dict[str, Any]) -> Table:
    # Fits 80 columns.
    table = Table(
        title="Test queries, percent",
        caption=f"* {peers['note']}",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("method")
    for name in (*METRICS, "train s", "queries/s"):
        table.add_column(name, justify="right", no_wrap=True)
    measured = [f"{evaluation.values[name]:.2f}" for name in METRICS]
    table.add_row("xmc", *measured, f"{seconds:.1f}", f"{evaluation.queries_per_second:,.0f}", style="bold")
    for peer in peers["rows"]:
        quoted = [f"{peer[name]:.2f}" for name in METRICS]
        speed = (f"{peer['training_seconds']:.1f}", f"{peer['queries_per_second']:,.0f}")
        table.add_row(f"{peer['method']} *", *quoted, *speed, style="dim")
    return table


def _examples(retriever: Retriever, data: Dataset) -> Table:
    """Test queries spread evenly over the split, with their best labels; the right ones in green."""
    test = data.split("test")
    rows = [len(test) * example // EXAMPLES for example in range(EXAMPLES)]
    truth = data.targets("test").truth
    texts = test.texts.take(rows).to_pylist()
    labels, _ = retriever.predict(texts, k=5)
    uids = data.labels.uids.to_pylist()
    table = Table(title="Five test queries and their best labels (✓: relevant)", show_lines=True)
    table.add_column("query", ratio=1)
    table.add_column("labels", ratio=1)
    for row, text, predicted in zip(rows, texts, labels, strict=True):
        relevant = {uids[label] for label in truth[row].indices}
        names = [
            Text.assemble("✓ ", cell(name), style="green") if uid in relevant else Text.assemble("  ", cell(name))
            for uid, name in zip(predicted, retriever.texts(list(predicted)), strict=True)
        ]
        table.add_row(cell(text), Text("\n").join(names))
    return table


def _peers() -> dict[str, Any]:
    import json

    from xmc.data.dataset import SHIPPED

    peers: dict[str, Any] = json.loads((SHIPPED / DATASET / "peers.json").read_text(encoding="utf-8"))
    return peers
