"""The models of re-rankers: features of a query and a label to the log-odds that the label is true."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from xmc.errors import StoreError, boundary
from xmc.storage.expected_tensors import Expected, numpy_tensors

__all__ = ["RerankModel"]


class RerankModel(ABC):
    """A fitted model. name: that of its class in xmc.search.rerank.registry.MODELS.

    grid: settings of `fit` that cross-fitting chooses among. expected: what `tensors` are like.
    """

    name: ClassVar[str]
    expected: ClassVar[Mapping[str, Expected]]
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
        """The model of these `tensors`, which are as `expected`; ValueError where they do not fit together."""

    @property
    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """All that was fitted, by name."""

    @classmethod
    def load(cls, directory: Path) -> RerankModel:
        """What `save` wrote. StoreError for tensors that are not a model's."""
        file = directory / f"{cls.name}.safetensors"
        with boundary(StoreError, f"{file} cannot be read as the model of a re-ranker"):
            return cls.from_tensors(numpy_tensors(file, cls.expected))

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
