"""The models of re-rankers: features of a query and a label to the log-odds that the label is true."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["RerankModel"]


class RerankModel(ABC):
    """A fitted model. name: that of its class in xmc.search.rerank.registry.MODELS.

    grid: settings of `fit` that cross-fitting chooses among.
    """

    name: ClassVar[str]
    grid: ClassVar[tuple[dict[str, Any], ...]]

    @classmethod
    @abstractmethod
    def fit(
        cls,
        values: npt.NDArray[np.float32],
        true: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float64],
        **settings: Any,
    ) -> RerankModel:
        """Fit to rows of features, float32 [rows, F], that are true or not, bool [rows], and count by weight [rows].

        settings: one of `grid`. Needs scikit-learn; `log_odds` does not.
        """

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> RerankModel:
        """What `save` wrote."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write safetensors into an existing directory."""

    @abstractmethod
    def log_odds(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Rows of features float32 [rows, F] to log-odds, float64 [rows], each of its own row alone."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what was fitted."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number F of features."""
