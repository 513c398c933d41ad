"""Logistic regression of soft targets with a few features: the fit of Platt (1999), weighted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

__all__ = ["fit_logistic"]

RIDGE = 1e-3
STEPS = 50


def fit_logistic(
    features: npt.NDArray[np.float64],
    targets: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    start: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """The t of greatest likelihood of P(y = 1 | x) = σ(x·t), float64 [d], by Newton's method with a small ridge.

    features: [n, d], one of them constant. targets: [n], in [0, 1]. weights: [n], how often each row counts. start: [d], where
    to begin; at 0 without it.
    """
    fitted = np.zeros(features.shape[1]) if start is None else start.copy()
    for _ in range(STEPS):
        probability = expit(features @ fitted)
        gradient = features.T @ (weights * (probability - targets)) + RIDGE * fitted
        curvature = (features * (weights * probability * (1 - probability))[:, None]).T @ features
        step = np.linalg.solve(curvature + RIDGE * np.eye(len(fitted)), gradient)
        largest = float(np.abs(step).max())
        fitted -= step * min(1.0, 4.0 / max(largest, 1e-12))
        if largest < 1e-8:
            break
    return fitted
