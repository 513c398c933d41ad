"""What is true, in arrays: positives without filtered pairs, and the labels of a ranking that are among them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from xmc.errors import InputError
from xmc.metrics.ranking import UNKNOWN_LABEL, positive_ranks

__all__ = ["filter_rows", "hits", "pairs_of", "positives_of", "truth_without", "without_filtered"]

Int64s = npt.NDArray[np.int64]


def truth_without(positives: csr_matrix, pairs: npt.NDArray[np.integer] | None) -> csr_matrix:
    """bool [n, L], sorted: the entries of `positives` greater than 0, without filtered pairs (query, label), int [m, 2].

    Raises InputError for pairs that do not fit.
    """
    filtered = filter_rows(pairs, *positives.shape)
    indptr, labels = without_filtered(*positives_of(positives), *filtered, positives.shape[1])
    return csr_matrix((np.ones(len(labels), bool), labels, indptr), shape=positives.shape)


def hits(labels: Int64s, truth: csr_matrix) -> npt.NDArray[np.bool_]:
    """Which of some labels [n, k] are true, bool [n, k]; a row has none twice, and numbers below 0 where there is none.

    truth: as from `truth_without`.
    """
    queries, k = labels.shape
    is_true = np.zeros(labels.shape, bool)
    if not k:
        return is_true
    ranked = np.where(labels < 0, UNKNOWN_LABEL, labels)  # an unknown label keeps its place, no prediction would not
    falling = np.ascontiguousarray(np.broadcast_to(-np.arange(k, dtype=np.float32), labels.shape))
    none = np.zeros(0, np.int64)
    indptr, indices = truth.indptr.astype(np.int64), truth.indices.astype(np.int64)
    ranks, _, _ = positive_ranks(ranked, falling, indptr, indices, np.zeros(queries + 1, np.int64), none, k, 0)
    ranked_positives = ranks < k
    is_true[np.repeat(np.arange(queries), np.diff(indptr))[ranked_positives], ranks[ranked_positives]] = True
    return is_true


def pairs_of(matrix: csr_matrix) -> Int64s:
    """The pairs (row, column) of the entries of a sparse matrix that are not 0, int64 [m, 2]."""
    return np.stack(matrix.nonzero(), axis=1).astype(np.int64)


def positives_of(truth: csr_matrix) -> tuple[Int64s, Int64s]:
    """Rows and sorted columns of the entries greater than 0."""
    positive = csr_matrix(truth > 0)
    positive.sum_duplicates()
    return positive.indptr.astype(np.int64), positive.indices.astype(np.int64)


def filter_rows(pairs: npt.NDArray[np.integer] | None, queries: int, labels: int) -> tuple[Int64s, Int64s]:
    """Filter pairs as CSR rows, sorted and unique."""
    array = np.zeros((0, 2), np.int64) if pairs is None else np.asarray(pairs)
    if array.size == 0:
        array = np.zeros((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"A filter has pairs of integers [m, 2], not {array.dtype} {list(array.shape)}.")
    outside = np.flatnonzero(((array < 0) | (array >= [queries, labels])).any(axis=1))
    if len(outside):
        query, label = array[outside[0]]
        raise InputError(
            f"Filter pair {outside[0]} is (query {query}, label {label}), outside of {queries} queries and {labels} "
            f"labels; rows count from 0. Is it the filter of another split?"
        )
    keys = np.unique(array[:, 0].astype(np.int64) * labels + array[:, 1])
    return _indptr(keys // max(labels, 1), queries), keys % max(labels, 1)


def without_filtered(
    indptr: Int64s, indices: Int64s, filter_indptr: Int64s, filter_indices: Int64s, labels: int
) -> tuple[Int64s, Int64s]:
    """The CSR rows without the filtered pairs."""
    if not len(filter_indices):
        return indptr, indices
    queries = len(indptr) - 1
    rows = np.repeat(np.arange(queries), np.diff(indptr))
    filtered = np.repeat(np.arange(queries), np.diff(filter_indptr)) * labels + filter_indices
    kept = ~np.isin(rows * labels + indices, filtered, assume_unique=True)
    return _indptr(rows[kept], queries), indices[kept]


def _indptr(rows: Int64s, queries: int) -> Int64s:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=queries))]).astype(np.int64)
