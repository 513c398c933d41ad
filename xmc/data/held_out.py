"""Which queries of the training split a run learns from, and which it keeps aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xmc.arrays import Mask, Rows

__all__ = ["Uses", "uses_of_queries"]

CALIBRATION_STREAM = 1
"""A random stream of its own."""


@dataclass(frozen=True)
class Uses:
    """Rows of the training split by their use, ascending int64; each row has one use."""

    training: Rows
    validation: Rows
    calibration: Rows


def uses_of_queries(
    queries: int, validation: float, calibration: float, seed: int, labelled: Mask | None = None
) -> Uses:
    """Draw the queries that are kept aside for validation and for calibration; the others are for training.

    queries: number of queries of the training split. validation, calibration: shares in [0, 1); a share above 0 has at
    least one query. Calibration queries are drawn first, from all of them. The same numbers give the same rows on every
    machine. labelled: bool [queries], False for queries that cannot be judged by, which are for training; None for none.
    """
    calibrating = np.zeros(0, np.int64)
    left = np.arange(queries) if labelled is None else np.flatnonzero(labelled)
    if calibration > 0 and len(left):
        shuffled = np.random.default_rng([seed, CALIBRATION_STREAM]).permutation(len(left))
        calibrating = np.sort(left[shuffled[: max(1, round(len(left) * calibration))]])
        left = np.setdiff1d(left, calibrating, assume_unique=True)
    validating = left[:0]
    if validation > 0 and len(left):
        shuffled = np.random.default_rng(seed).permutation(len(left))
        validating = np.sort(left[shuffled[: max(1, round(len(left) * validation))]])
        left = np.setdiff1d(left, validating, assume_unique=True)
    if labelled is not None:
        left = np.union1d(left, np.flatnonzero(~labelled))
    return Uses(left, validating, calibrating)
