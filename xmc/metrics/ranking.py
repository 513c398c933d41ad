"""From raw predictions to the rank of every positive: sort, remove filtered pairs and repeats, look up. In numba."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from xmc.kernels.parallel import parallel_kernel

__all__ = ["NO_PREDICTION", "UNKNOWN_LABEL", "best_ranks", "positive_ranks"]

NO_PREDICTION = -1
"""Fills prediction rows that have fewer labels than columns; such entries are left out, whatever their score."""
UNKNOWN_LABEL = -2
"""A prediction of some label outside of the label set: wrong, but it holds its rank. May stand in a row repeatedly."""

_ROWS_A_BLOCK = 512
_LABEL_BITS = 0xFFFF_FFFF
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


def positive_ranks(
    labels: Int64s,
    scores: npt.NDArray[np.float32],
    truth_indptr: Int64s,
    truth_indices: Int64s,
    filter_indptr: Int64s,
    filter_indices: Int64s,
    depth: int,
    top: int,
) -> tuple[Int32s, Int64s, npt.NDArray[np.float32]]:
    """Rank every positive among its query's predictions, after filtering.

    A row's ranking is its labels by falling score, ties by rising label, without NO_PREDICTION, filtered pairs, and
    repeats of a label (the best-scored stays).

    Parameters
    ----------
    labels, scores: [n, columns], C-contiguous; labels < 2^32 - 1, scores not NaN where there is a label.
    truth_indptr, truth_indices: CSR rows of positives, [n + 1] and [nnz], sorted within a row; likewise the filter's.
    depth: rank at which to stop looking.
    top: number of ranked labels to return, at most `depth`.

    Returns
    -------
    ranks, int32 [nnz]: rank of each positive, from 0; `depth` for one that is not in the first `depth` places.
    ranking, int64 [n, top]: the best labels, padded with NO_PREDICTION.
    ranked_scores, float32 [n, top]: their scores, padded with -inf.
    """
    ranks = np.full(len(truth_indices), depth, np.int32)
    ranking = np.full((len(labels), top), NO_PREDICTION, np.int64)
    ranked_scores = np.full((len(labels), top), -np.inf, np.float32)
    _rank_rows(
        labels,
        scores.view(np.int32),
        truth_indptr,
        truth_indices,
        filter_indptr,
        filter_indices,
        depth,
        ranks,
        ranking,
        ranked_scores.view(np.int32),
    )
    return ranks, ranking, ranked_scores


@parallel_kernel(nogil=True)
def best_ranks(indptr: Int64s, weights: npt.NDArray[np.float64]) -> Int32s:
    """The rank of each CSR entry, int32 [nnz] from 0, when its row's entries are sorted by falling weight."""
    ranks = np.empty(len(weights), np.int32)
    for row in numba.prange(len(indptr) - 1):
        start = indptr[row]
        order = np.argsort(-weights[start : indptr[row + 1]])
        for rank in range(len(order)):
            ranks[start + order[rank]] = rank
    return ranks


@parallel_kernel(nogil=True)
def _rank_rows(
    labels: Int64s,
    score_bits: Int32s,
    truth_indptr: Int64s,
    truth_indices: Int64s,
    filter_indptr: Int64s,
    filter_indices: Int64s,
    depth: int,
    ranks: Int32s,
    ranking: Int64s,
    ranked_bits: Int32s,
) -> None:
    rows, columns = labels.shape
    slots = 4
    while slots < 2 * columns:
        slots *= 2
    for block in numba.prange((rows + _ROWS_A_BLOCK - 1) // _ROWS_A_BLOCK):
        keys = np.empty(columns, np.int64)
        seen = np.empty(slots, np.int64)
        for row in range(block * _ROWS_A_BLOCK, min(rows, (block + 1) * _ROWS_A_BLOCK)):
            candidates = _sort_row(labels[row], score_bits[row], keys)
            seen[:] = NO_PREDICTION
            rank = 0
            for place in range(candidates):
                label = keys[place] & _LABEL_BITS
                if label != _LABEL_BITS:
                    if not _insert(seen, label):
                        continue
                    if _find(filter_indices, filter_indptr[row], filter_indptr[row + 1], label) >= 0:
                        continue
                    positive = _find(truth_indices, truth_indptr[row], truth_indptr[row + 1], label)
                    if positive >= 0:
                        ranks[positive] = rank
                if rank < ranking.shape[1]:
                    ranking[row, rank] = UNKNOWN_LABEL if label == _LABEL_BITS else label
                    bits = -(keys[place] >> 32)
                    ranked_bits[row, rank] = bits if bits >= 0 else np.int64(-0x8000_0000) - bits
                rank += 1
                if rank == depth:
                    break


@numba.njit(cache=True, nogil=True)
def _sort_row(labels: Int64s, score_bits: Int32s, keys: Int64s) -> int:
    """Fill `keys` with one sortable integer a prediction, in order, and return how many there are.

    The upper half falls with the score, the lower half is the label (all ones for UNKNOWN_LABEL). The bits of a
    float32, read as an integer, rise with it for positive numbers; for negative ones sign and magnitude become a two's
    complement, which also makes -0.0 equal to 0.0.
    """
    count = 0
    ordered = True
    for column in range(len(labels)):
        label = labels[column]
        if label == NO_PREDICTION:
            continue
        bits = np.int64(score_bits[column])
        if bits < 0:
            bits = np.int64(-0x8000_0000) - bits
        keys[count] = -bits * np.int64(0x1_0000_0000) + (label & _LABEL_BITS if label >= 0 else _LABEL_BITS)
        ordered &= count == 0 or keys[count - 1] <= keys[count]
        count += 1
    if not ordered:
        keys[:count].sort()
    return count


@numba.njit(cache=True, nogil=True)
def _insert(seen: Int64s, label: int) -> bool:
    """Add a label to the hash set `seen` (a power of two of slots, empty ones NO_PREDICTION); False if it was there."""
    mask = len(seen) - 1
    slot = (label * 2654435761 >> 7) & mask
    while seen[slot] != NO_PREDICTION:
        if seen[slot] == label:
            return False
        slot = (slot + 1) & mask
    seen[slot] = label
    return True


@numba.njit(cache=True, nogil=True)
def _find(values: Int64s, start: int, end: int, wanted: int) -> int:
    """The place of `wanted` in the sorted values[start:end], or -1."""
    while start < end:
        middle = (start + end) // 2
        if values[middle] < wanted:
            start = middle + 1
        elif values[middle] > wanted:
            end = middle
        else:
            return middle
    return -1
