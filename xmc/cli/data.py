"""`xmc data`: convert, inspect and validate data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from xmc.data.inspect import Inspection, Spread
    from xmc.data.readers import Columns

app = typer.Typer(help="Convert, inspect and validate data sets.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(help="Directory (or Parquet, CSV, JSONL file) in any known format.")]
Format = Annotated[
    str | None,
    typer.Option(
        help="canonical, xml-json, xml-sparse, bag-of-words, dexml or tabular; by default what the files show."
    ),
]
Uid = Annotated[str, typer.Option("--uid-column", help="Tabular: column of uids.")]
Text = Annotated[str, typer.Option("--text-column", help="Tabular: column of texts.")]
Labels = Annotated[str, typer.Option("--labels-column", help="Tabular: column of labels, a list or a string.")]
Relevance = Annotated[str, typer.Option("--relevance-column", help="Tabular: column of relevances, a list.")]
Separator = Annotated[str, typer.Option(help="Tabular: what separates the labels of a string.")]


@app.command()
def convert(
    source: Source,
    destination: Annotated[Path, typer.Argument(help="Directory to write in the canonical format.")],
    format: Format = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set; by default the directory's.")] = None,
    on_bad_row: Annotated[str, typer.Option(help="error: refuse at the first; drop: leave out and count.")] = "error",
    uid_column: Uid = "uid",
    text_column: Text = "text",
    labels_column: Labels = "labels",
    relevance_column: Relevance = "relevance",
    separator: Separator = ",",
) -> None:
    """Convert a data set into the canonical directory that all other commands read."""
    from xmc.data.convert import convert as run
    from xmc.data.readers import open_source
    from xmc.errors import ConfigError

    if on_bad_row not in ("error", "drop"):
        raise ConfigError(f"--on-bad-row must be error or drop, but is {on_bad_row!r}.")
    columns = _columns(uid_column, text_column, labels_column, relevance_column, separator)
    done = run(
        open_source(source, format, columns),
        destination,
        name=name,
        on_bad_row="drop" if on_bad_row == "drop" else "error",
    )
    data = done.dataset
    sizes = ", ".join(f"{rows:,} {split}" for split, rows in data.properties["splits"].items())
    typer.echo(f"{destination}: {data.properties['labels']:,} labels; queries: {sizes}")
    for reason, count in sorted(done.dropped.items()):
        typer.echo(f"dropped: {count:,} x {reason}")
    for reason, count in sorted(done.warnings.items()):
        typer.echo(f"warning: {count:,} x {reason}")


@app.command()
def validate(
    source: Source,
    format: Format = None,
    uid_column: Uid = "uid",
    text_column: Text = "text",
    labels_column: Labels = "labels",
    relevance_column: Relevance = "relevance",
    separator: Separator = ",",
) -> None:
    """List every defect with file and line; exit code 2 when there is an error among them."""
    from xmc.data.readers import open_source
    from xmc.data.validate import validate as run

    counts = {"error": 0, "warning": 0}
    columns = _columns(uid_column, text_column, labels_column, relevance_column, separator)
    for defect in run(open_source(source, format, columns)):
        counts[defect.severity] += 1
        typer.echo(f"{defect.severity}: {defect}")
    typer.echo(f"{source}: {counts['error']:,} errors, {counts['warning']:,} warnings")
    if counts["error"]:
        raise typer.Exit(2)


@app.command()
def inspect(
    dataset: Annotated[str, typer.Argument(help="Name of a shipped data set, or a canonical directory.")],
) -> None:
    """Print counts, labels per query, queries per label, zero-shot labels and text lengths."""
    from xmc.data.dataset import Dataset
    from xmc.data.inspect import inspect as run

    _print(run(Dataset.load(dataset)))


@app.command()
def embed_images(
    dataset: Annotated[Path, typer.Argument(help="Canonical directory.")],
    model: Annotated[Path, typer.Option(help="Hugging Face directory with a vision model and its image processor.")],
    images: Annotated[
        Path, typer.Option(help="Parquet, CSV or JSONL file with columns uid and path, a line an image.")
    ],
    of: Annotated[str, typer.Option(help='A split, or "labels".')] = "labels",
    root: Annotated[Path | None, typer.Option(help="Where relative paths start; by default where the file is.")] = None,
    max_images: Annotated[int, typer.Option(min=1, help="So many of a text's images at most.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Images embedded at once.")] = 32,
    device: Annotated[str, typer.Option(help='"cpu", "cuda", "cuda:1" or "auto".')] = "auto",
) -> None:
    """Embed image files and add them to a data set. Can be stopped: the same command goes on.

    Files that cannot be read are skipped, and listed with the reason in images-<of>.broken.csv.
    """
    from xmc.errors import require_package

    require_package("PIL", "xmc data embed-images reads image files", "pillow")
    from xmc.data.dataset import Dataset
    from xmc.data.images.embed import embed_images as run

    data = Dataset.load(dataset)
    done = run(data, of, images, model, root=root, most=max_images, batch_size=batch_size, device=device)
    typer.echo(f"{done.images:,} images of {done.texts:,} of {len(data.images(of) or ()):,} {of} embedded")
    if done.broken:
        typer.echo(f"skipped: {len(done.broken):,} files that cannot be read, see {dataset}/images-{of}.broken.csv")
    for count, what in ((done.unknown_uids, "of unknown uids"), (done.too_many, f"beyond {max_images} a text")):
        if count:
            typer.echo(f"left out: {count:,} lines {what}")


@app.command()
def import_images(
    dataset: Annotated[Path, typer.Argument(help="Canonical directory.")],
    source: Annotated[Path, typer.Argument(help="Folder with ViXML's *_embs_*.npy and map files.")],
    read_object_arrays: Annotated[
        bool, typer.Option(help="Read lists of numbers, and nothing else, from maps that hold Python objects.")
    ] = False,
) -> None:
    """Add the image embeddings of ViXML's data sets to a data set of the same rows."""
    from xmc.data.dataset import Dataset
    from xmc.data.images.vixml import import_vixml_images

    found = import_vixml_images(Dataset.load(dataset), source, read_object_arrays=read_object_arrays)
    for name, (images, texts) in found.items():
        typer.echo(f"{name}: {images:,} images of {texts:,} texts")


def _columns(uid: str, text: str, labels: str, relevance: str, separator: str) -> Columns:
    from xmc.data.readers import Columns

    return Columns(uid, text, labels, relevance, separator)


def _print(found: Inspection) -> None:
    console = Console()
    console.print(
        f"[bold]{escape(found.name)}[/bold]: {found.labels:,} labels, {found.zero_shot_labels:,} without a training query"
    )
    table = Table("queries", *found.queries)
    cells = {
        "count": [f"{count:,}" for count in found.queries.values()],
        "without labels": [f"{count:,}" for count in found.queries_without_labels.values()],
        "filter pairs": [f"{count:,}" for count in found.filter_pairs.values()],
        "pairs of zero-shot labels": [f"{share:.1%}" for share in found.zero_shot_pairs.values()],
        "labels per query": [_line(spread) for spread in found.labels_per_query.values()],
        "characters": [_line(spread) for spread in found.query_characters.values()],
    }
    for title, values in cells.items():
        table.add_row(title, *values)
    console.print(table)
    for name, (images, texts) in found.images.items():
        console.print(f"images of {name}: {images:,}, of {texts:,} texts")
    console.print(f"label characters: {_line(found.label_characters)}")
    table = Table("decile", title="Training queries per label, labels in ten equal groups, rarest first")
    for column in ("lowest", "mean", "highest"):
        table.add_column(column, justify="right")
    for decile, (lowest, mean, highest) in enumerate(found.queries_per_label_deciles, 1):
        table.add_row(str(decile), str(lowest), f"{mean:.2f}", str(highest))
    console.print(table)


def _line(spread: Spread) -> str:
    lowest, middle, _, _, highest = spread.quantiles
    return f"mean {spread.mean:.1f}, min {lowest:g}, median {middle:g}, max {highest:g}"
