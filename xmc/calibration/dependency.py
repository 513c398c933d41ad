"""Label dependency: how unlike a label set is to all those that were seen in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix, csr_matrix

from xmc.cached import cached_property

__all__ = ["LabelSets"]


@dataclass(frozen=True)
class LabelSets:
    """The label sets of training, each once. distance(Y) = min over them of |Y Δ T|, the Hamming distance to the nearest.

    A set of labels that were seen together costs nothing; each label too many or too few for that costs 1. As a penalty of
    conformal prediction: Katsios & Papadopoulos, "Incorporating structural penalties in multi-label conformal prediction"
    (2025).

    offsets: int64 [sets + 1], where each set begins in `ids`. ids: int64, the label ids of all sets, set after set.
    """

    offsets: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]

    @classmethod
    def from_lists(cls, sets: Iterable[Iterable[int]]) -> LabelSets:
        """The sets of these lists of label ids, each set once."""
        ordered = sorted({tuple(sorted(label_set)) for label_set in sets})
        ids = np.fromiter(chain.from_iterable(ordered), np.int64)
        return cls(np.cumsum([0, *map(len, ordered)]).astype(np.int64), ids)

    @cached_property
    def _by_label(self) -> tuple[npt.NDArray[np.int64], csc_matrix]:
        labels, columns = np.unique(self.ids, return_inverse=True)
        shape = (len(self.offsets) - 1, len(labels))
        return labels, csr_matrix((np.ones(len(columns), np.int64), columns, self.offsets), shape=shape).tocsc()

    def distance(self, ids: Sequence[int]) -> int:
        """The distance of a label set to the nearest one; its size where there are no sets."""
        sizes = np.diff(self.offsets)
        if not len(sizes):
            return len(ids)
        labels, by_label = self._by_label
        nearest = len(ids) + int(sizes.min())  # of a set that shares no label
        known = np.array(sorted(set(ids)), np.int64)
        nearest_columns = np.minimum(np.searchsorted(labels, known), max(len(labels) - 1, 0))
        columns = nearest_columns[labels[nearest_columns] == known] if len(labels) else nearest_columns[:0]
        sharing = [by_label.indices[by_label.indptr[column] : by_label.indptr[column + 1]] for column in columns]
        if sharing:
            sets, shared = np.unique(np.concatenate(sharing), return_counts=True)
            if len(sets):
                nearest = min(nearest, int((len(ids) + sizes[sets] - 2 * shared).min()))
        return nearest
