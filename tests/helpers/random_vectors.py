"""Embeddings that stand for anything."""

from __future__ import annotations

from typing import Any

import numpy as np


def vectors(count: int, seed: int, dimension: int) -> Any:
    """float32 [count, dimension], normally distributed."""
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
