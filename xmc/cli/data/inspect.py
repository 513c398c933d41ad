"""`xmc data inspect`: what a data set holds, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from xmc.cli import complete
from xmc.cli.console import console, say
from xmc.terminal import cell

if TYPE_CHECKING:
    from xmc.data.inspect import Inspection, Spread


def inspect(
    dataset: Annotated[
        str,
        typer.Argument(help="Name of a shipped data set, or a canonical directory.", autocompletion=complete.data_sets),
    ],
) -> None:
    """Print counts, labels per query, queries per label, zero-shot labels and text lengths."""
    from xmc.data.dataset import Dataset
    from xmc.data.inspect import inspect as inspect_dataset

    _print(inspect_dataset(Dataset.load(dataset)))


def _print(inspection: Inspection) -> None:
    counts = f": {inspection.labels:,} labels, {inspection.zero_shot_labels:,} without a training query"
    console.print(Text.assemble(cell(inspection.name, "bold"), counts), highlight=False)
    table = Table("queries")
    for name in inspection.queries:
        table.add_column(cell(name))
    cells = {
        "count": [f"{count:,}" for count in inspection.queries.values()],
        "without labels": [f"{count:,}" for count in inspection.queries_without_labels.values()],
        "filter pairs": [f"{count:,}" for count in inspection.filter_pairs.values()],
        "pairs of zero-shot labels": [f"{share:.1%}" for share in inspection.zero_shot_pairs.values()],
        "labels per query": [_line(spread) for spread in inspection.labels_per_query.values()],
        "rejected pairs": [f"{count:,}" for count in inspection.rejected_pairs.values()],
        "rejected per query": [_line(spread) for spread in inspection.rejected_per_query.values()],
        "characters": [_line(spread) for spread in inspection.query_characters.values()],
    }
    if any(share < 1 for share in inspection.labelled.values()):
        cells["labelled"] = [f"{share:.1%}" for share in inspection.labelled.values()]
    if not any(inspection.rejected_pairs.values()):
        cells = {title: values for title, values in cells.items() if not title.startswith("rejected")}
    for title, values in cells.items():
        table.add_row(title, *values)
    console.print(table)
    for name, (images, texts) in inspection.images.items():
        say(f"images of {name}: {images:,}, of {texts:,} texts")
    for split, sources in inspection.votes.items():
        for source, (votes, positive) in sources.items():
            say(f"votes on {split} of {source}: {votes:,}, {positive:.1%} of them for a label")
    for split, (sets, labels) in inspection.candidate_sets.items():
        say(f"candidate sets of {split}: {sets:,}, of {labels:,} labels together")
    for split, (bags, queries) in inspection.label_bags.items():
        say(f"bags of {split}: {bags:,}, of {queries:,} queries together")
    say(f"label characters: {_line(inspection.label_characters)}")
    table = Table("decile", title="Training queries per label, labels in ten equal groups, rarest first")
    for column in ("lowest", "mean", "highest"):
        table.add_column(column, justify="right")
    for decile, (lowest, mean, highest) in enumerate(inspection.queries_per_label_deciles, 1):
        table.add_row(str(decile), str(lowest), f"{mean:.2f}", str(highest))
    console.print(table)


def _line(spread: Spread) -> str:
    lowest, middle, _, _, highest = spread.quantiles
    return f"mean {spread.mean:.1f}, min {lowest:g}, median {middle:g}, max {highest:g}"
