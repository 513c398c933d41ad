"""Tuning: the index design and its search parameters, chosen by measurement for a goal."""

from xmc.indexes.tuning.automatic import automatic_version
from xmc.indexes.tuning.choice import Tuned, TunedVersion, tune, tune_version
from xmc.indexes.tuning.goal import Goal, OperatingPoint, pareto

__all__ = ["Goal", "OperatingPoint", "Tuned", "TunedVersion", "automatic_version", "pareto", "tune", "tune_version"]
