"""Logistic regression over features: standardised columns, one weight each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xmc.search.rerank.models import RerankModel
from xmc.storage.expected_tensors import Expected

__all__ = ["LogisticModel"]


class LogisticModel(RerankModel):
    """Log-odds w · (x − mean) / deviation + b; a missing value counts as the mean.

    mean, deviation, weights: float64 [F]. bias: float64.
    """

    name = "logistic"
    grid = ({"C": 0.1}, {"C": 1.0})
    expected: ClassVar[Mapping[str, Expected]] = {
        **{name: Expected((None,), ("F64",)) for name in ("mean", "deviation", "weights")},
        "bias": Expected((1,), ("F64",)),
    }  # fmt: skip

    def __init__(
        self,
        mean: npt.NDArray[np.float64],
        deviation: npt.NDArray[np.float64],
        weights: npt.NDArray[np.float64],
        bias: float,
    ) -> None:
        self.mean, self.deviation, self.weights, self.bias = mean, deviation, weights, bias

    @classmethod
    def fit(
        cls,
        values: npt.NDArray[np.float32],
        true: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float64],
        **settings: Any,
    ) -> LogisticModel:
        """See RerankModel. C: inverse strength of the L2 regularisation."""
        from sklearn.linear_model import LogisticRegression

        wide = values.astype(np.float64)
        mean = np.nan_to_num(np.nanmean(wide, axis=0))
        deviation = np.nan_to_num(np.nanstd(wide, axis=0))
        deviation[deviation == 0] = 1.0
        standard = np.nan_to_num((wide - mean) / deviation)
        fitted = LogisticRegression(max_iter=1000, **settings).fit(standard, true, sample_weight=weights)
        return cls(mean, deviation, fitted.coef_[0].astype(np.float64), float(fitted.intercept_[0]))

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]]) -> LogisticModel:
        """See RerankModel."""
        sizes = {len(tensors[name]) for name in ("mean", "deviation", "weights")}
        if len(sizes) > 1 or not tensors["deviation"].all():
            raise ValueError(f"it has numbers of {sorted(sizes)} features, or deviations of 0")
        return cls(tensors["mean"], tensors["deviation"], tensors["weights"], float(tensors["bias"][0]))

    @property
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See RerankModel."""
        bias = np.array([self.bias])
        return {"mean": self.mean, "deviation": self.deviation, "weights": self.weights, "bias": bias}

    def log_odds(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See RerankModel. The products are summed column by column, so that a row does not depend on the others."""
        total = np.full(len(values), self.bias)
        for column, weight in enumerate(self.weights):
            standard = (values[:, column] - self.mean[column]) / self.deviation[column]
            total += weight * np.nan_to_num(standard)
        return total

    @property
    def width(self) -> int:
        """See RerankModel."""
        return len(self.weights)
