"""Candidates of a split's queries by a retriever, and which of them are true."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc

from xmc.arrays import Mask
from xmc.calibration.candidates import Candidates, JudgedCandidates, draws, frequency_groups
from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.evaluation.judging import Ranking, most_excluded
from xmc.evaluation.predicted import dataset_rows
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL
from xmc.metrics.truth import hits
from xmc.progress import tracked
from xmc.search.retriever import Retriever

__all__ = ["gather", "groups_of_labels", "judged", "true_ids"]

CELLS_AT_ONCE = 1 << 22


def gather(
    retriever: Retriever,
    dataset: Dataset,
    split: Split,
    targets: Targets,
    candidates: int,
    groups: npt.NDArray[np.int8],
    seed: int,
) -> JudgedCandidates:
    """Search for every query of a split, and compare with its true labels.

    targets: of the queries and the data set's labels; excluded pairs are neither candidates nor true. groups: by label id.
    Labels that the retriever lacks are among the positives; labels that the data set lacks are never true.
    """
    retriever = retriever.at_one_version()
    version = retriever.labels
    rows_of_labels = dataset_rows(version, dataset)
    texts = pc.fill_null(split.texts, "").to_pylist()
    images = retriever.model.query_encoder.images_of(split.images)
    wanted = candidates + most_excluded(targets)
    step = max(1, min(4_096, CELLS_AT_ONCE // wanted))
    batches: list[Candidates] = []
    true: list[Mask] = []
    starts = range(0, len(texts), step)
    for first in tracked(starts, "searching", unit="batches of queries"):
        rows = np.arange(first, min(first + step, len(texts)))
        batch_images = None if images is None else images.take(rows)
        ids, scores = retriever.search(texts[first : first + step], wanted, images=batch_images, allow_empty=True)
        labels = np.where(ids >= 0, rows_of_labels[version.rows_of_ids(ids)], NO_PREDICTION)
        batch_targets = targets.take(rows)
        ranking = Ranking.from_search(ids, labels, scores, batch_targets, candidates)
        batches.append(Candidates.from_search(ranking.ids, ranking.scores, groups))
        true.append(hits(ranking.labels, batch_targets.truth))
    every = Candidates(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in ("scores", "groups")))
    return judged(every, np.concatenate(true), targets, split, seed)


def judged(candidates: Candidates, true: Mask, targets: Targets, split: Split, seed: int) -> JudgedCandidates:
    """Candidates of a split's queries with all that is known of them. true: bool [n, K], which candidates are true."""
    true_labels = np.diff(targets.truth.indptr).astype(np.int64)
    return JudgedCandidates(candidates, true, true_labels, draws(split.uids.to_pylist(), seed))


def true_ids(retriever: Retriever, dataset: Dataset, targets: Targets) -> list[list[int]]:
    """The label ids of each query's true labels; labels that the retriever lacks have numbers below 0, each its own."""
    labels = retriever.labels
    rows = dataset_rows(labels, dataset)[:-1]
    ids = -1 - np.arange(len(dataset.labels))
    ids[rows[rows != UNKNOWN_LABEL]] = labels.ids[rows != UNKNOWN_LABEL]
    truth = targets.truth
    return [query_ids.tolist() for query_ids in np.split(ids[truth.indices], truth.indptr[1:-1])]


def groups_of_labels(retriever: Retriever, dataset: Dataset, training: Split | None) -> npt.NDArray[np.int8]:
    """The frequency group of each label id that was ever given, int8 [ids]; all of the first without training queries."""
    labels = retriever.labels
    groups = np.zeros(labels.next_id, np.int8)
    if training is not None:
        rows = dataset_rows(labels, dataset)[:-1]
        counts = training.targets().positive_counts
        shared = rows != UNKNOWN_LABEL
        groups[labels.ids[shared]] = frequency_groups(counts[rows[shared]])
    return groups
