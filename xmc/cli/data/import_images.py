"""`xmc data import-images`: ViXML's image embeddings, added to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmc.cli.console import say


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

    counts = import_vixml_images(Dataset.load(dataset), source, read_object_arrays=read_object_arrays)
    for name, (images, texts) in counts.items():
        say(f"{name}: {images:,} images of {texts:,} texts")
