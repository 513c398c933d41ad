"""Parts of a data set, for runs of a few steps."""

from __future__ import annotations

import numpy as np

from xmc.data.dataset import Dataset

__all__ = ["first_queries", "small_part"]


def first_queries(data: Dataset, queries: int) -> Dataset:
    """The first training queries alone, with all labels, in memory."""
    return _part(data, np.arange(len(data.labels)), {"train": queries}, "first queries")


def small_part(data: Dataset, queries: int = 48) -> Dataset:
    """The first queries of both splits, and the labels of those for training, in memory: for trying a table out."""
    labels = np.unique(data.split("train").positives[:queries].indices)
    return _part(data, labels, {"train": queries, "test": queries}, "small")


def _part(data: Dataset, labels: np.ndarray, counts: dict[str, int], suffix: str) -> Dataset:
    texts = data.labels.texts.to_pylist()
    splits = {}
    for name, count in counts.items():
        split = data.split(name)
        positives = split.positives[:count, labels]
        lists = [positives[row].indices.tolist() for row in range(positives.shape[0])]
        splits[name] = (split.texts[:count].to_pylist(), lists)
    return Dataset.from_lists(f"{data.name}, {suffix}", [texts[row] for row in labels], splits)
