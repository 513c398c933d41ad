"""Groups of labels by how often they are given: what is estimated of given pairs is estimated for each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["GROUPS", "groups_of_labels", "is_common"]

STARTS = np.array([3, 5, 9, 21, 61])
"""Numbers of given pairs from which on a label is in the next group."""
GROUPS = len(STARTS) + 1
COMMON = 3
"""Group from which on the labels are common: rarer ones hardly tell a true pair from chance while it is left out."""


def groups_of_labels(counts: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The group of each label, in [0, GROUPS), given its number of pairs."""
    groups: npt.NDArray[np.int64] = np.digitize(counts, STARTS).astype(np.int64)
    return groups


def is_common(group: int) -> bool:
    """Whether the labels of a group are common."""
    return group >= COMMON
