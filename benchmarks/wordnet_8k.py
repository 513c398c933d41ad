"""Table wordnet_8k: the shipped data set, xmc with its default configuration beside linear peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from measurements import Measurement
from retrieval import compare

from xmc.config import TrainConfig
from xmc.data.dataset import Dataset

__all__ = ["run"]


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure with one seed."""
    yield from compare("wordnet_8k", Dataset.load("wordnet-8k"), TrainConfig(), seed, methods)
