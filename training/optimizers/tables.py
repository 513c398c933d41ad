"""Adam on a feature table of the static encoder, one touched row at a time, from the factors of its gradient."""

from __future__ import annotations

import numpy as np
import torch

from xmc.encoders.static.encoder import FeatureTable
from xmc.encoders.static.feature_table import transpose, weight_gradients
from xmc.training.optimizers.row_kernels import adam_factored_rows
from xmc.training.optimizers.rows import RowAdam

__all__ = ["FeatureTableAdam"]


class FeatureTableAdam:
    """Adam on a feature table's touched rows and feature weights, from the factors its backward passes left."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table
        self.vectors = RowAdam(table.vectors)
        self.weights = RowAdam(table.log_weights[:, None])

    def step(self, learning_rate: float, weight_learning_rate: float) -> None:
        """Use up `table.pending`: the gradient of every touched row, over all backward passes since the last step."""
        if not self.table.pending:
            return
        bags_of_passes = [bags for bags, _ in self.table.pending]
        gradients = tuple(gradient.numpy() for _, gradient in self.table.pending)
        self.table.pending.clear()
        entries = transpose(bags_of_passes, len(self.table.vectors))
        first_bags = np.cumsum([0, *(len(bags.offsets) - 1 for bags in bags_of_passes)])
        first_features = np.cumsum([0, *(len(bags.rows) for bags in bags_of_passes)])
        alignments = np.zeros(first_features[-1], np.float32)
        rate, root = self.vectors.advance(learning_rate)
        adam_factored_rows(
            *self.vectors.arrays(),
            entries.touched,
            entries.starts,
            entries.bags,
            entries.features,
            tuple(bags.coefficients for bags in bags_of_passes),
            gradients,
            first_bags,
            first_features,
            alignments,
            rate,
            *self.vectors.betas,
            root,
        )
        del entries, gradients
        totals = np.zeros(len(self.table.log_weights))
        for bags, first in zip(bags_of_passes, first_features[:-1], strict=True):
            weight_gradients(bags.values, bags.coefficients, alignments[first:], totals)
        slots = np.flatnonzero(totals)
        self.weights.step(
            torch.from_numpy(slots), torch.from_numpy(totals[slots, None].astype(np.float32)), weight_learning_rate
        )
