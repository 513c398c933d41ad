"""What a data set looks like: counts, labels per query, queries per label, text lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xmc.data.dataset import Dataset
from xmc.data.evidence import Votes

__all__ = ["Inspection", "Spread", "inspect"]

QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class Spread:
    """Mean and the quantiles QUANTILES of some numbers."""

    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """A description of a data set.

    queries, queries_without_labels, labels_per_query, query_characters: by split; labels are positives. rejected_per_query,
    rejected_pairs: by split, labels that were judged not relevant. queries_per_label_deciles: of ten groups
    of labels of equal number, rarest first, (lowest, mean, highest) number of training queries. zero_shot_labels: labels
    without a training query; zero_shot_pairs: by split, the share of its positive pairs that are of such labels. images: by
    split, and of "labels", where there are any: their number, and that of the texts that have at least one.

    labelled: by split, the share of queries that something is known of. votes: by split and source, the number of its votes
    and the share that says "relevant". candidate_sets: by split, number of sets, and of labels in them. label_bags: by split,
    number of bags, and of queries in them; these three for splits that have them alone.
    """

    name: str
    labels: int
    queries: dict[str, int]
    queries_without_labels: dict[str, int]
    labels_per_query: dict[str, Spread]
    rejected_per_query: dict[str, Spread]
    rejected_pairs: dict[str, int]
    queries_per_label_deciles: list[tuple[int, float, int]]
    zero_shot_labels: int
    zero_shot_pairs: dict[str, float]
    query_characters: dict[str, Spread]
    label_characters: Spread
    filter_pairs: dict[str, int]
    images: dict[str, tuple[int, int]]
    labelled: dict[str, float]
    votes: dict[str, dict[str, tuple[int, float]]]
    candidate_sets: dict[str, tuple[int, int]]
    label_bags: dict[str, tuple[int, int]]


def inspect(dataset: Dataset) -> Inspection:
    """Describe a data set; the training split is "train"."""
    splits = {name: dataset.split(name) for name in dataset.splits}
    total = len(dataset.labels)
    targets = {name: dataset.targets(name) for name in dataset.splits}
    counts = targets["train"].positive_counts if "train" in targets else np.zeros(total, np.int64)
    positives = {name: np.diff(split.positives.indptr) for name, split in targets.items()}
    rejected = {name: np.diff(split.rejected.indptr) for name, split in targets.items()}
    unseen = counts == 0
    return Inspection(
        name=dataset.name,
        labels=total,
        queries={name: len(split) for name, split in splits.items()},
        queries_without_labels={name: int((numbers == 0).sum()) for name, numbers in positives.items()},
        labels_per_query={name: _spread(numbers) for name, numbers in positives.items()},
        rejected_per_query={name: _spread(numbers) for name, numbers in rejected.items()},
        rejected_pairs={name: int(numbers.sum()) for name, numbers in rejected.items()},
        queries_per_label_deciles=_deciles(counts),
        zero_shot_labels=int(unseen.sum()),
        zero_shot_pairs={
            name: float(unseen[split.positives.indices].mean()) if split.positives.nnz else 0.0
            for name, split in targets.items()
        },
        query_characters={name: _spread(_lengths(split.texts)) for name, split in splits.items()},
        label_characters=_spread(_lengths(dataset.labels.texts)),
        filter_pairs={name: len(dataset.filter(name)) for name in dataset.splits},
        images=_images(dataset),
        labelled={
            name: 1.0 if split.labelled is None else float(split.labelled.mean()) for name, split in splits.items()
        },
        votes={name: _votes(votes) for name in splits if (votes := dataset.votes(name)) is not None},
        candidate_sets={
            name: (len(sets), len(sets.labels)) for name in splits if (sets := dataset.candidate_sets(name)) is not None
        },
        label_bags={
            name: (len(bags), len(bags.queries)) for name in splits if (bags := dataset.label_bags(name)) is not None
        },
    )


def _votes(votes: Votes) -> dict[str, tuple[int, float]]:
    by_source = {name: votes.values[votes.sources == place] for place, name in enumerate(votes.names)}
    return {name: (len(values), float((values > 0).mean())) for name, values in by_source.items() if len(values)}


def _images(dataset: Dataset) -> dict[str, tuple[int, int]]:
    every = {name: dataset.images(name) for name in dataset.image_names}
    return {
        name: (len(images.values), int((images.counts > 0).sum()))
        for name, images in every.items()
        if images is not None
    }


def _lengths(texts: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.utf8_length(texts), 0).to_numpy(), np.int64)


def _spread(values: npt.NDArray[np.integer]) -> Spread:
    if not len(values):
        return Spread(0.0, (0.0,) * len(QUANTILES))
    return Spread(float(values.mean()), tuple(np.quantile(values, QUANTILES, method="nearest").tolist()))


def _deciles(counts: npt.NDArray[np.int64]) -> list[tuple[int, float, int]]:
    groups = np.array_split(np.sort(counts), 10)
    return [(int(group.min()), float(group.mean()), int(group.max())) for group in groups if len(group)]
