"""Exact search: every label is scored, in tiles, and no matrix of all scores is held."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from xmc.indexes.base import Embeddings, ExcludedRows, LabelIndex, Rows
from xmc.kernels.positives import Positives
from xmc.kernels.topk import topk_inner_product

__all__ = ["ExactIndex", "exact_search"]


class ExactIndex(LabelIndex):
    """The embeddings themselves; needs no FAISS."""

    kind: ClassVar[str] = "exact"

    def _build(self, embeddings: Embeddings) -> None:
        pass

    def _add(self, embeddings: Embeddings, first: int) -> None:
        pass

    def _remove(self, embeddings: Embeddings, kept: npt.NDArray[np.bool_]) -> None:
        pass

    def _search(self, queries: Embeddings, k: int, exclude: ExcludedRows | None) -> tuple[Embeddings, Rows]:
        return exact_search(queries, self.embeddings, k, exclude)


def exact_search(
    queries: Embeddings, embeddings: Embeddings, k: int, exclude: ExcludedRows | None
) -> tuple[Embeddings, Rows]:
    """Scores and rows [n, k] of the best embeddings, exact, ties by the lower row."""
    pairs = None if exclude is None else Positives(torch.from_numpy(exclude[0]).long(), torch.from_numpy(exclude[1]))
    scores, rows = topk_inner_product(torch.from_numpy(queries), _tensor(embeddings), k, exclude=pairs)
    return scores.numpy(), rows.numpy()


def _tensor(embeddings: Embeddings) -> torch.Tensor:
    """A tensor over the same memory; torch warns of a read-only memory map, which nothing here writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(embeddings)
