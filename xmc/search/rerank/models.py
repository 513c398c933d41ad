"""The models of re-rankers: features of a query and a label to the log-odds that the label is true."""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

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
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]]) -> RerankModel:
        """The model of these `tensors`; KeyError where one is missing."""

    @property
    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """All that was fitted, by name."""

    @classmethod
    def load(cls, directory: Path) -> RerankModel:
        """What `save` wrote."""
        return cls.from_tensors(load_file(directory / f"{cls.name}.safetensors"))

    def save(self, directory: Path) -> None:
        """Write safetensors into an existing directory."""
        save_file(self.tensors, directory / f"{self.name}.safetensors")

    @property
    def digest(self) -> str:
        """SHA-256 of what was fitted."""
        return sha256(b"".join(array.tobytes() for _, array in sorted(self.tensors.items()))).hexdigest()

    @abstractmethod
    def log_odds(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Rows of features float32 [rows, F] to log-odds, float64 [rows], each of its own row alone."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number F of features."""
