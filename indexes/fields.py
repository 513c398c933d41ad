"""Labels with several embeddings each (a title's, an image's), searched by any weighting of them in one index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xmc.arrays import Embeddings
from xmc.errors import InputError
from xmc.indexes.checks import require_matrix

__all__ = ["Fields"]


class Fields:
    """The fields of a label and their dimensions, in the order in which their embeddings stand side by side.

    The score of a label is Σ_f w_f · (q_f · z_f): the inner product of the queries' embeddings, times their weights, side by
    side with the labels' embeddings side by side. So one LabelIndex of Σ D_f dimensions answers for weights that are chosen
    at each search (weighted fusion: Bernabeu, Gallego & Pertusa, "Multi-label logo recognition and retrieval based on
    weighted fusion of neural features", 2022). An index that was tuned was so for the weights of the queries it was tuned with.

    >>> fields = Fields({"title": 2, "image": 1})
    >>> labels = fields.labels({"title": [[1, 0], [0, 1]], "image": [[1], [0]]})
    >>> query = fields.queries({"title": [[0.6, 0.8]], "image": [[1]]}, {"title": 1, "image": 0.5})[0]
    >>> [round(float(score), 2) for score in labels @ query]
    [1.1, 0.8]
    """

    def __init__(self, dimensions: Mapping[str, int]) -> None:
        """InputError without any field, or for one of no dimension."""
        if not dimensions or min(dimensions.values()) < 1:
            raise InputError(f"Fields need names with dimensions of at least 1, but are {dict(dimensions)}.")
        self.dimensions = dict(dimensions)

    def __repr__(self) -> str:
        """The fields with their dimensions."""
        return f"<{type(self).__name__}: {', '.join(f'{name} {size}' for name, size in self.dimensions.items())}>"

    @property
    def dimension(self) -> int:
        """Of the embeddings side by side."""
        return sum(self.dimensions.values())

    def labels(self, embeddings: Mapping[str, Any]) -> Embeddings:
        """float32 [L, ΣD_f] from [L, D_f] by field; zeros for a label's missing one. InputError where a field is missing."""
        absent = [name for name in self.dimensions if name not in embeddings]
        if absent:
            raise InputError(f"Label embeddings of the field {absent[0]!r} are missing; give zeros for labels without.")
        return self._side_by_side(embeddings, {})

    def queries(self, embeddings: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> Embeddings:
        """float32 [n, ΣD_f] from [n, D_f] of some fields, each times its weight, which is 1 where none is given.

        Fields that are not given do not count. InputError for an unknown field, or a weight that is not finite.
        """
        if not embeddings:
            raise InputError(f"A query needs one of the fields {', '.join(self.dimensions)}, but has none.")
        return self._side_by_side(embeddings, dict(weights or {}))

    def _side_by_side(self, embeddings: Mapping[str, Any], weights: Mapping[str, float]) -> Embeddings:
        for name in [*embeddings, *weights]:
            if name not in self.dimensions:
                raise InputError(f"There is no field {name!r}, only {', '.join(self.dimensions)}.")
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise InputError(f"The weight of the field {name!r} must be finite, but is {weight}.")
        given = {
            name: require_matrix(part, self.dimensions[name], f"embeddings of {name}")
            for name, part in embeddings.items()
        }
        counts = {len(part) for part in given.values()}
        if len(counts) > 1:
            raise InputError(
                f"All fields need as many rows, but have {', '.join(f'{name} {len(part)}' for name, part in given.items())}."
            )
        rows = counts.pop()
        parts = [
            given[name] * np.float32(weights.get(name, 1.0)) if name in given else np.zeros((rows, size), np.float32)
            for name, size in self.dimensions.items()
        ]
        return np.concatenate(parts, axis=1)
