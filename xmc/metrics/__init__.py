"""Ranking metrics of extreme multi-label classification: P, nDCG, PSP, PSnDCG, R and others at k."""

from __future__ import annotations

from xmc.metrics.definitions import KS, METRICS, RECALL_KS, Metric
from xmc.metrics.labelwise import Decile
from xmc.metrics.measures import Measure, measures_of, usual_measures
from xmc.metrics.predictions import Metrics, evaluate_predictions
from xmc.metrics.propensity import propensities, propensity_parameters
from xmc.metrics.ranking import NO_PREDICTION, UNKNOWN_LABEL

__all__ = [
    "KS",
    "METRICS",
    "NO_PREDICTION",
    "RECALL_KS",
    "UNKNOWN_LABEL",
    "Decile",
    "Measure",
    "Metric",
    "Metrics",
    "evaluate_predictions",
    "measures_of",
    "propensities",
    "propensity_parameters",
    "usual_measures",
]
