"""Candidates of a split's queries by a retriever, and which of them are true."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc
from rich.console import Console
from rich.progress import track

from xmc.calibration.candidates import Candidates, JudgedCandidates, draws, frequency_groups
from xmc.data.dataset import Dataset, Split
from xmc.evaluation import dataset_rows
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL
from xmc.retriever import Retriever

__all__ = ["gather", "groups_of_labels", "judged", "true_ids"]

Int64s = npt.NDArray[np.int64]
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
    most_filtered = int(np.bincount(filtered[:, 0]).max()) if len(filtered) else 0
    texts = pc.fill_null(split.texts, "").to_pylist()
    images = retriever.model.query_encoder.images_of(split.images)
    wanted = candidates + most_filtered
    step = max(1, min(4_096, CELLS_AT_ONCE // wanted))
    parts = []
    console = Console(stderr=True)
    starts = range(0, len(texts), step)
    for first in track(starts, "searching", console=console, disable=not console.is_terminal, transient=True):
        rows = np.arange(first, min(first + step, len(texts)))
        own = None if images is None else images.take(rows)
        ids, scores = retriever.search(texts[first : first + step], wanted, images=own)
        at = np.where(ids >= 0, rows_of_labels[retriever.labels.rows_of_ids(ids)], NO_PREDICTION)
        here = filtered[np.isin(filtered[:, 0], rows)] - np.array([first, 0])
        ids, at, scores = _without(ids, at, scores, here, len(dataset.labels), candidates)
        parts.append((Candidates.of(ids, scores, groups), at))
    every = Candidates(*(np.concatenate([getattr(one, name) for one, _ in parts]) for name in ("scores", "groups")))
    return judged(every, np.concatenate([at for _, at in parts]), split, filtered, seed)


def judged(candidates: Candidates, rows: Int64s, split: Split, filtered: Pairs, seed: int) -> JudgedCandidates:
    """Candidates that are the labels `rows` [n, K] of the data set, below 0 for none of it, with the truth of a split."""
    total = split.positives.shape[1]
    positive = (split.positives > 0).tocoo()
    keys = positive.row.astype(np.int64) * total + positive.col
    keys = np.sort(keys[~np.isin(keys, filtered[:, 0] * total + filtered[:, 1])])
    counts = np.bincount(keys // max(total, 1), minlength=len(split)).astype(np.int64)
    hits = np.zeros(rows.shape, bool)
    step = max(1, CELLS_AT_ONCE // max(rows.shape[1], 1))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        asked = np.arange(first, first + len(part))[:, None] * total + part
        places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        hits[first : first + step] = (keys[places] == asked) & (part >= 0) if len(keys) else False
    return JudgedCandidates(candidates, hits, counts, draws(split.uids.to_pylist(), seed))


def true_ids(retriever: Retriever, dataset: Dataset, split: Split, filtered: Pairs) -> list[list[int]]:
    """The label ids of each query's true labels; those that the retriever lacks have numbers below 0, one each."""
    rows = dataset_rows(retriever.labels, dataset)[:-1]
    ids = -1 - np.arange(len(dataset.labels))
    ids[rows[rows != UNKNOWN_LABEL]] = retriever.labels.ids[rows != UNKNOWN_LABEL]
    left_out = set(map(tuple, filtered.tolist()))
    offsets, indices = split.positives.indptr, split.positives.indices
    positive = split.positives.data > 0
    found = []
    for row, (first, end) in enumerate(pairwise(offsets.tolist())):
        labels = indices[first:end][positive[first:end]].tolist()
        found.append([int(ids[label]) for label in labels if (row, label) not in left_out])
    return found


def groups_of_labels(retriever: Retriever, dataset: Dataset, training: Split | None) -> npt.NDArray[np.int8]:
    """The frequency group of each label id that was ever given, int8 [ids]; all of the first without training queries."""
    groups = np.zeros(retriever.labels.next_id, np.int8)
    if training is not None:
        rows = dataset_rows(retriever.labels, dataset)[:-1]
        counts = np.asarray(training.positives.getnnz(axis=0))
        there = rows != UNKNOWN_LABEL
        groups[retriever.labels.ids[there]] = frequency_groups(counts[rows[there]])
    return groups


def _without(
    ids: Int64s, rows: Int64s, scores: npt.NDArray[np.float32], filtered: Pairs, labels: int, k: int
) -> tuple[Int64s, Int64s, npt.NDArray[np.float32]]:
    """The first k of each query without filtered pairs."""
    keys = np.arange(len(rows))[:, None] * labels + rows
    out = np.isin(keys, filtered[:, 0] * labels + filtered[:, 1]) & (rows >= 0)
    order = np.argsort(out, axis=1, kind="stable")[:, :k]
    ids = np.where(out, -1, ids)
    return tuple(np.take_along_axis(array, order, 1) for array in (ids, rows, scores))  # type: ignore[return-value]
