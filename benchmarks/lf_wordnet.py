"""Table lf_wordnet: all of WordNet, 65,962 labels, from the folder LF-WordNet in the directory that XMC_DATA names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from measurements import Measurement
from retrieval import CACHE, compare

from xmc.config import TrainConfig
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import open_source
from xmc.errors import DataError

__all__ = ["CONFIG", "dataset", "run"]

NAME = "LF-WordNet"
CONFIG = Path(__file__).parents[1] / "configs" / "static-lf-wordnet.yaml"


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure with one seed. DataError without the data."""
    yield from compare("lf_wordnet", dataset(), TrainConfig.load(CONFIG), seed, methods)


def dataset() -> Dataset:
    """The converted data set, made on first use and again when a source file is newer."""
    if not os.environ.get("XMC_DATA"):
        raise DataError(f"Set the environment variable XMC_DATA to the directory that holds the folder {NAME}.")
    source = Path(os.environ["XMC_DATA"]) / NAME
    if not source.is_dir():
        raise DataError(f"{source} does not exist; XMC_DATA must name the directory that holds the folder {NAME}.")
    converted = CACHE / NAME
    stamp = converted / "dataset.json"
    if stamp.exists() and stamp.stat().st_mtime > max(file.stat().st_mtime for file in source.iterdir()):
        return Dataset.load(converted)
    return convert(open_source(source), converted, overwrite=True).dataset
