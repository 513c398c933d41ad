"""Ranking metrics of extreme multi-label classification: P, nDCG, PSP, PSnDCG and R at k."""

from __future__ import annotations

from xmc.metrics.labelwise import Decile
from xmc.metrics.predictions import Metrics, evaluate_predictions
from xmc.metrics.propensity import propensities, propensity_parameters
from xmc.metrics.ranking import NO_PREDICTION, UNKNOWN_LABEL

__all__ = [
    "NO_PREDICTION",
    "UNKNOWN_LABEL",
    "Decile",
    "Metrics",
    "evaluate_predictions",
    "propensities",
    "propensity_parameters",
]
