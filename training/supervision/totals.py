"""Probabilities that are to sum up to what is known of them: log odds are moved together, group by group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

__all__ = ["moves_to_totals"]

Values = npt.NDArray[np.float64]
MOST = 60.0
"""No log odds are moved by more."""
HALVINGS = 60


def moves_to_totals(
    odds: Values, groups: npt.NDArray[np.integer], totals: Values, weights: Values | float = 1.0
) -> Values:
    """What to add to the log odds of each of G groups for its probabilities to sum up to its total, float64 [G].

    odds: float64 [n]. groups: int [n], in [0, G). totals: float64 [G]; one that cannot be reached is come near to. weights:
    float64 [n], how often each counts.
    """
    low, high = np.full(len(totals), -MOST), np.full(len(totals), MOST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = np.bincount(groups, weights * expit(odds + middle[groups]), len(totals)) > totals
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    moves: Values = (low + high) / 2
    return moves
