"""Exact search over blocks of embeddings: every allowed label is scored, and no matrix of all scores is held."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from xmc.arrays import Embeddings, Mask, Rows
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.library import faiss
from xmc.indexes.threads import shared_threads
from xmc.kernels.topk import topk_inner_product

__all__ = ["best_of", "exact_search", "first_found", "score_rows"]

Labels = TypeVar("Labels", bound=npt.NDArray[Any])

GATHERED = 65_536
"""Allowed rows that are copied together at a time, where others stand between them."""
DENSE_SHARE = 0.05
"""Few queries pass over a block without copying where, for each of them, more than this share of it is allowed."""
FEW_QUERIES = 8
MANY_QUERIES, FEW_LABELS = 512, 200_000
"""FAISS's flat search is faster for at most `FEW_QUERIES`, or for at least `MANY_QUERIES` over at most `FEW_LABELS`, as
measured (docs/indexes.md)."""


def exact_search(
    queries: Embeddings, embeddings: EmbeddingBlocks, k: int, allowed: Mask | None = None
) -> tuple[Embeddings, Rows]:
    """Scores and rows [n, k] of the best allowed embeddings, exact, ties by the lower row; -inf and -1 where too few are.

    allowed: bool [rows]; all where None.
    """
    parts = [(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1))]
    for first, block in embeddings:
        mask = None if allowed is None else allowed[first : first + len(block)]
        for scores, rows in _search_block(queries, block, k, mask):
            parts.append((scores, np.where(rows >= 0, rows + first, -1)))
    return best_of(parts, k)


def best_of(parts: list[tuple[Embeddings, Labels]], k: int) -> tuple[Embeddings, Labels]:
    """The k best of several results, by rows or by ids, best first; among equal scores, that of the earlier part and place."""
    if len(parts) == 1 and parts[0][0].shape[1] == k:
        return parts[0]
    scores = np.concatenate([part[0] for part in parts], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    labels: Any = np.take_along_axis(np.concatenate([part[1] for part in parts], axis=1), order, 1)
    return np.take_along_axis(scores, order, 1), labels


def first_found(scores: Embeddings, rows: Rows, k: int) -> tuple[Embeddings, Rows]:
    """The first k columns [n, k], once each row -1 stands behind all others, which keep their order."""
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def score_rows(queries: Embeddings, embeddings: EmbeddingBlocks, rows: Rows) -> Embeddings:
    """The inner product of each query [n, D] with its own rows [n, m]: float32 [n, m], -inf for the row -1.

    Each product is summed in an order that depends on D alone, so that a score does not depend on what else is scored.
    """
    if faiss is None:
        return _score_copies(queries, embeddings, rows)
    scores = np.full(rows.shape, -np.inf, np.float32)
    queries, rows = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(rows, np.int64)
    with shared_threads():
        for first, block in embeddings:
            inside = (rows >= first) & (rows < first + len(block))
            if inside.any():
                places = np.where(inside, rows - first, -1)
                np.copyto(scores, _score_places(queries, block, places), where=inside)
    return scores


def _score_places(queries: Embeddings, block: Embeddings, places: Rows) -> Embeddings:
    """`score_rows` of one array, by FAISS, which reads its rows where they are."""
    scores = np.empty(places.shape, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (scores, queries, block, places)]
    faiss.fvec_inner_products_by_idx(*pointers, block.shape[1], *places.shape)
    return scores


def _score_copies(queries: Embeddings, embeddings: EmbeddingBlocks, rows: Rows) -> Embeddings:
    """`score_rows` without FAISS."""
    scores = np.empty(rows.shape, np.float32)
    height = max(1, GATHERED // max(1, rows.shape[1]))
    for top in range(0, len(rows), height):
        part = rows[top : top + height]
        vectors = embeddings.take(np.maximum(part, 0).ravel()).reshape(*part.shape, -1)
        scores[top : top + height] = np.einsum("nmd,nd->nm", vectors, queries[top : top + height])
    scores[rows < 0] = -np.inf
    return scores


def _search_block(
    queries: Embeddings, block: Embeddings, k: int, mask: Mask | None
) -> Iterator[tuple[Embeddings, Rows]]:
    allowed = len(block) if mask is None else int(mask.sum())
    if not allowed:
        return
    if mask is None or allowed == len(block):
        yield _best(queries, block, min(k, allowed))
    elif len(queries) <= FEW_QUERIES and allowed > DENSE_SHARE * len(queries) * len(block):
        yield _best(queries, block, min(k, allowed), mask)
    else:
        rows = np.flatnonzero(mask)
        for start in range(0, allowed, GATHERED):
            part = rows[start : start + GATHERED]
            scores, places = _best(queries, block[part], min(k, len(part)))
            yield scores, np.where(places >= 0, part[places], -1)


def _best(queries: Embeddings, labels: Embeddings, k: int, mask: Mask | None = None) -> tuple[Embeddings, Rows]:
    """k best labels of one array, k at most the labels that the mask lets pass."""
    by_faiss = len(queries) <= FEW_QUERIES or (len(queries) >= MANY_QUERIES and len(labels) <= FEW_LABELS)
    if faiss is None or not by_faiss:
        return _best_by_torch(queries, labels, k, mask)
    allowed = len(labels) if mask is None else int(mask.sum())
    scores, rows = _best_by_faiss(queries, labels, min(k + 1, allowed), mask)
    order = np.lexsort((rows, -scores), axis=1)
    scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    if allowed > k:  # FAISS leaves open which of equal scores it returns
        open_ends = np.flatnonzero(scores[:, k - 1] == scores[:, k])
        scores, rows = scores[:, :k], rows[:, :k]
        if len(open_ends):
            scores[open_ends], rows[open_ends] = _best_by_torch(queries[open_ends], labels, k, mask)
    return scores, rows


def _best_by_faiss(queries: Embeddings, labels: Embeddings, k: int, mask: Mask | None) -> tuple[Embeddings, Rows]:
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    bits = None if mask is None else np.packbits(mask, bitorder="little")
    selector = None if bits is None else faiss.IDSelectorBitmap(bits)
    given, found = [faiss.swig_ptr(array) for array in (queries, labels)], [faiss.swig_ptr(a) for a in (scores, rows)]
    with shared_threads():
        faiss.knn_inner_product(*given, labels.shape[1], len(queries), len(labels), k, *found, selector)
    return scores, rows


def _best_by_torch(queries: Embeddings, labels: Embeddings, k: int, mask: Mask | None) -> tuple[Embeddings, Rows]:
    bias = None if mask is None else torch.from_numpy(np.where(mask, 0, -np.inf).astype(np.float32))
    scores, rows = topk_inner_product(_tensor(queries), _tensor(labels), k, label_bias=bias)
    return scores.numpy(), rows.numpy()


def _tensor(embeddings: Embeddings) -> torch.Tensor:
    """A tensor over the same memory; torch warns of a read-only memory map, which nothing here writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(embeddings)
