"""Boosted trees over features, as flat arrays: fitted by scikit-learn, evaluated here without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xmc.kernels.trees import sum_of_trees
from xmc.search.rerank.models import RerankModel
from xmc.storage.expected_tensors import Expected

__all__ = ["TreesModel"]

_SETTINGS = {"max_iter": 120, "l2_regularization": 1.0, "early_stopping": False, "random_state": 0}
"""Settings of scikit-learn's that are the same for all of the grid."""


class TreesModel(RerankModel):
    """Log-odds of boosted trees: a constant and a leaf's value of each tree.

    roots: int32 [trees], the node at which each tree begins. Nodes of all trees: feature int32, -1 at a leaf; threshold
    float32: a value at most as large goes left; left, right int32: the next node; missing_left bool: where a missing value
    goes; value float64: of a leaf. width: number F of features.

    Source: Friedman, Greedy Function Approximation: A Gradient Boosting Machine, 2001; histograms as in LightGBM, by
    scikit-learn's HistGradientBoostingClassifier, whose raw predictions these are.
    """

    name = "trees"
    grid = (
        {"learning_rate": 0.06, "max_leaf_nodes": 8, "min_samples_leaf": 40},
        {"learning_rate": 0.03, "max_leaf_nodes": 15, "min_samples_leaf": 80},
    )

    expected: ClassVar[Mapping[str, Expected]] = {
        **{name: Expected((None,), ("I32",)) for name in ("roots", "feature", "left", "right")},
        "threshold": Expected((None,), finite=False),
        "missing_left": Expected((None,), ("BOOL",)),
        "value": Expected((None,), ("F64",)),
        "constant": Expected((1,), ("F64",)),
        "width": Expected((1,), ("I64",)),
    }  # fmt: skip

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], constant: float, width: int) -> None:
        self.arrays, self.constant, self._width = arrays, constant, width

    @classmethod
    def fit(
        cls,
        values: npt.NDArray[np.float32],
        true: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float64],
        **settings: Any,
    ) -> TreesModel:
        """See RerankModel. settings: of scikit-learn's HistGradientBoostingClassifier."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        classifier = HistGradientBoostingClassifier(**{**_SETTINGS, **settings})
        return cls.from_scikit_learn(classifier.fit(values, true, sample_weight=weights))

    @classmethod
    def from_scikit_learn(cls, classifier: Any) -> TreesModel:
        """The trees of a fitted HistGradientBoostingClassifier with two classes and no categories.

        A threshold in 64 bits becomes the greatest of 32 bits that is not above it, which parts float32 values alike.
        """
        nodes = [trees[0].nodes for trees in classifier._predictors]
        starts = np.cumsum([0, *map(len, nodes)])[:-1].astype(np.int32)
        joined = np.concatenate(nodes)
        shift = np.repeat(starts, [len(one) for one in nodes])
        leaf = joined["is_leaf"].astype(bool)
        arrays = {
            "roots": starts,
            "feature": np.where(leaf, -1, joined["feature_idx"]).astype(np.int32),
            "threshold": _rounded_down(joined["num_threshold"]),
            "left": (joined["left"] + shift).astype(np.int32),
            "right": (joined["right"] + shift).astype(np.int32),
            "missing_left": joined["missing_go_to_left"].astype(bool),
            "value": np.where(leaf, joined["value"], 0.0).astype(np.float64),
        }
        return cls(arrays, float(np.ravel(classifier._baseline_prediction)[0]), int(classifier.n_features_in_))

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]]) -> TreesModel:
        """See RerankModel."""
        arrays = {name: array for name, array in tensors.items() if name not in ("constant", "width")}
        _require_sound(arrays, int(tensors["width"][0]))
        return cls(arrays, float(tensors["constant"][0]), int(tensors["width"][0]))

    @property
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """See RerankModel."""
        return {**self.arrays, "constant": np.array([self.constant]), "width": np.array([self._width])}

    def log_odds(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See RerankModel."""
        total = np.full(len(values), self.constant)
        nodes = self.arrays
        sum_of_trees(
            np.ascontiguousarray(values, np.float32),
            nodes["roots"],
            nodes["feature"],
            nodes["threshold"],
            nodes["left"],
            nodes["right"],
            nodes["missing_left"],
            nodes["value"],
            total,
        )
        return total

    @property
    def width(self) -> int:
        """See RerankModel."""
        return self._width


def _require_sound(arrays: dict[str, npt.NDArray[Any]], width: int) -> None:
    """ValueError for nodes that are not there, which the kernel would follow, and for trees that never come to a leaf."""
    sizes = {len(array) for name, array in arrays.items() if name != "roots"}
    if len(sizes) != 1:
        raise ValueError(f"its trees have arrays of {sorted(sizes)} nodes")
    nodes, inner = sizes.pop(), np.flatnonzero(arrays["feature"] >= 0)
    children = np.stack([arrays["left"][inner], arrays["right"][inner]])
    roots = arrays["roots"]
    if (arrays["feature"] >= width).any() or (len(roots) and not 0 <= roots.min() <= roots.max() < nodes):
        raise ValueError(
            f"its trees begin at nodes, or look at features, that are not there: it has {nodes} and {width}"
        )
    if (children <= inner).any() or (children >= nodes).any():  # a child comes after its parent
        raise ValueError(f"its trees go on at nodes that are not there, or go round in circles: it has {nodes} nodes")


def _rounded_down(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    above = rounded.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)
