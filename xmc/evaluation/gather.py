"""Candidates of a split's queries by a retriever, and which of them are true."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc
from scipy.sparse import csr_matrix

from xmc.calibration.candidates import Candidates, JudgedCandidates, draws, frequency_groups
from xmc.data.dataset import Dataset
from xmc.data.splits import Split
from xmc.data.targets import pairs_of_rows
from xmc.evaluation.evaluate import dataset_rows
from xmc.evaluation.judging import Ranking, most_filtered
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL
from xmc.metrics.truth import hits, truth_without
from xmc.progress import progress_bar
from xmc.search.retriever import Retriever

__all__ = ["gather", "groups_of_labels", "judged", "true_ids"]

Pairs = npt.NDArray[np.int64]
CELLS_AT_ONCE = 1 << 22


def gather(
    retriever: Retriever,
    dataset: Dataset,
    split: Split,
    filtered: Pairs,
    candidates: int,
    groups: npt.NDArray[np.int8],
    seed: int,
) -> JudgedCandidates:
    """Search for every query, and compare with its true labels.

    filtered: pairs (query row, label row of the data set), int64 [m, 2], that are neither candidates nor true. groups: by label
    id. Labels that the retriever lacks are among the positives; labels that the data set lacks are never true.
    """
    rows_of_labels = dataset_rows(retriever.labels, dataset)
    truth = truth_without(split.positives, filtered)
    texts = pc.fill_null(split.texts, "").to_pylist()
    images = retriever.model.query_encoder.images_of(split.images)
    wanted = candidates + most_filtered(filtered)
    step = max(1, min(4_096, CELLS_AT_ONCE // wanted))
    parts: list[Candidates] = []
    hit: list[npt.NDArray[np.bool_]] = []
    starts = range(0, len(texts), step)
    with progress_bar(transient=True) as progress:
        for first in progress.track(starts, description="searching"):
            rows = np.arange(first, min(first + step, len(texts)))
            own = None if images is None else images.take(rows)
            ids, scores = retriever.search(texts[first : first + step], wanted, images=own)
            at = np.where(ids >= 0, rows_of_labels[retriever.labels.rows_of_ids(ids)], NO_PREDICTION)
            ranking = Ranking.of(ids, at, scores, pairs_of_rows(filtered, rows), candidates)
            parts.append(Candidates.of(ranking.ids, ranking.scores, groups))
            hit.append(hits(ranking.labels, truth[rows]))
    every = Candidates(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("scores", "groups")))
    return judged(every, np.concatenate(hit), truth, split, seed)


def judged(
    candidates: Candidates, hit: npt.NDArray[np.bool_], truth: csr_matrix, split: Split, seed: int
) -> JudgedCandidates:
    """Candidates of a split's queries, which of them are true, and the truth bool [n, L] with all true labels."""
    return JudgedCandidates(
        candidates, hit, np.diff(truth.indptr).astype(np.int64), draws(split.uids.to_pylist(), seed)
    )


def true_ids(retriever: Retriever, dataset: Dataset, split: Split, filtered: Pairs) -> list[list[int]]:
    """The label ids of each query's true labels; those that the retriever lacks have numbers below 0, one each."""
    rows = dataset_rows(retriever.labels, dataset)[:-1]
    ids = -1 - np.arange(len(dataset.labels))
    ids[rows[rows != UNKNOWN_LABEL]] = retriever.labels.ids[rows != UNKNOWN_LABEL]
    truth = truth_without(split.positives, filtered)
    return [own.tolist() for own in np.split(ids[truth.indices], truth.indptr[1:-1])]


def groups_of_labels(retriever: Retriever, dataset: Dataset, training: Split | None) -> npt.NDArray[np.int8]:
    """The frequency group of each label id that was ever given, int8 [ids]; all of the first without training queries."""
    groups = np.zeros(retriever.labels.next_id, np.int8)
    if training is not None:
        rows = dataset_rows(retriever.labels, dataset)[:-1]
        counts = np.asarray(training.positives.getnnz(axis=0))
        there = rows != UNKNOWN_LABEL
        groups[retriever.labels.ids[there]] = frequency_groups(counts[rows[there]])
    return groups
