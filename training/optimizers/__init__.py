"""Optimizers that cost what a step touches."""

from __future__ import annotations

from xmc.training.optimizers.model import Optimizers
from xmc.training.optimizers.rows import RowAdam
from xmc.training.optimizers.tables import FeatureTableAdam

__all__ = ["FeatureTableAdam", "Optimizers", "RowAdam"]
