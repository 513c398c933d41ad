"""Data sets with pairs that were judged not relevant, in both ways to write that down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from layouts import unlisted

from xmc.data.dataset import Dataset


def rejecting(data: Dataset, directory: Path, each: int = 2) -> Dataset:
    """The data set with rejected pairs added, `each` by the column `rejected` and `each` by a relevance of 0, for every query.

    Rejected labels are drawn from those that are neither positive nor excluded, so that all else is as in `data`.
    """
    data.save(directory)
    unlisted(directory)
    labels = len(data.labels)
    for number, split in enumerate(data.splits):
        random = np.random.default_rng(number)
        not_negative = data.targets(split).not_negative
        file = directory / f"queries-{split}.parquet"
        table = pq.read_table(file)
        lists, relevance, rejected = [], [], []
        for row, positives in enumerate(table["labels"].to_pylist()):
            free = np.setdiff1d(np.arange(labels), not_negative[row].indices)
            drawn = random.choice(free, 2 * each, replace=False).tolist()
            lists.append([*positives, *drawn[:each]])
            relevance.append([1.0] * len(positives) + [0.0] * each)
            rejected.append(sorted(drawn[each:]))
        kept = table.drop_columns(["labels", "relevance", "rejected"])
        for name, column, kind in (
            ("labels", lists, pa.int32()),
            ("relevance", relevance, pa.float32()),
            ("rejected", rejected, pa.int32()),
        ):
            kept = kept.append_column(name, pa.array(column, pa.list_(kind)))
        pq.write_table(kept, file)
    judged = Dataset.load(directory)
    judged.properties.pop("fingerprint")
    return judged
