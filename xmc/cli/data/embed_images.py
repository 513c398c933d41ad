"""`xmc data embed-images`: image files in, embeddings beside a data set out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli import complete
from xmc.cli.console import say


def embed_images(
    dataset: Annotated[Path, typer.Argument(help="Canonical directory.")],
    model: Annotated[Path, typer.Option(help="Hugging Face directory with a vision model and its image processor.")],
    images: Annotated[
        Path, typer.Option(help="Parquet, CSV or JSONL file with columns uid and path, a line an image.")
    ],
    of: Annotated[str, typer.Option(help='A split, or "labels".')] = "labels",
    root: Annotated[Path | None, typer.Option(help="Where relative paths start; by default where the file is.")] = None,
    max_images: Annotated[int, typer.Option(min=1, help="Largest number of images of a text.")] = 3,
    batch_size: Annotated[int, typer.Option(min=1, help="Images embedded at once.")] = 32,
    device: Annotated[
        str, typer.Option(help='"cpu", "cuda", "cuda:1" or "auto".', autocompletion=complete.devices)
    ] = "auto",
) -> None:
    """Embed image files and add them to a data set. Can be stopped: the same command goes on.

    Files that cannot be read are skipped, and listed with the reason in images-<of>.broken.csv.
    """
    from xmc.errors import require_package

    require_package("PIL", "xmc data embed-images reads image files", "pillow")
    from xmc.data.dataset import Dataset
    from xmc.data.images.embed import embed_images as embed_files

    data = Dataset.load(dataset)
    done = embed_files(data, of, images, model, root=root, most=max_images, batch_size=batch_size, device=device)
    say(f"{done.images:,} images of {done.texts:,} of {done.rows:,} {of} embedded")
    if done.broken:
        say(f"skipped: {len(done.broken):,} files that cannot be read, see {dataset}/images-{of}.broken.csv")
    for count, what in ((done.unknown_uids, "of unknown uids"), (done.too_many, f"beyond {max_images} a text")):
        if count:
            say(f"left out: {count:,} lines {what}")
