"""Images for tests: random embeddings, and a data set of three labels and five queries."""

from __future__ import annotations

import numpy as np

from xmc.data.dataset import Dataset
from xmc.data.images.ragged import RaggedImages

NUMBERS = 5


def pictures(counts: list[int], seed: int = 0, numbers: int = NUMBERS) -> RaggedImages:
    values = np.random.default_rng(seed).standard_normal((sum(counts), numbers)).astype(np.float16)
    return RaggedImages(values, np.cumsum([0, *counts]).astype(np.int64))


def same(one: RaggedImages | None, other: RaggedImages) -> bool:
    return one is not None and np.array_equal(one.values, other.values) and np.array_equal(one.offsets, other.offsets)


def small(images: dict[str, RaggedImages] | None = None) -> Dataset:
    splits = {"train": (["a", "b", "c"], [[0], [1, 2], [2]]), "test": (["d", "e"], [[0], [1]])}
    return Dataset.from_lists("small", ["red", "green", "blue"], splits, label_uids=["r", "g", "b"], images=images)
