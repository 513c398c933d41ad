"""The sum of shifted sigmoids over all labels, which soft top-k and thresholds are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.reductions.reduction import REDUCTIONS, Reduction, Sums

__all__ = ["Sigmoid"]


class Sigmoid(Reduction):
    """Σ_j σ(α (s_ij + t_i)) over all labels, and its derivative in t_i. shift: t [B]; slope: α."""

    takes_positives = True
    device_module = "xmc.kernels.triton_tiles.reductions.sigmoid"

    shift: Tensor

    def __init__(self, shift: Tensor, slope: float = 1.0) -> None:
        self.shift, self.slope = shift, slope

    def detached(self) -> Sigmoid:
        """The same without a graph of its shift."""
        return Sigmoid(self.shift.detach(), self.slope)

    def add(self, sums: Sums, block: slice, scores: Tensor) -> None:
        """Weights α σ (1 - σ)."""
        scores.add_(self.shift[block, None]).mul_(self.slope).sigmoid_()
        sums.value[block] += scores.sum(1)
        sums.derivative[block] += torch.addcmul(scores, scores, scores, value=-1, out=scores).mul_(self.slope).sum(1)

    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        """α σ (1 - σ)."""
        scores.add_(self.shift[block, None]).mul_(self.slope).sigmoid_()
        return torch.addcmul(scores, scores, scores, value=-1, out=scores).mul_(self.slope)

    def reference(self, scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Both sums as they are written."""
        sigmoids = torch.sigmoid(self.slope * (scores + self.shift.double()[:, None]))
        derivative = (self.slope * sigmoids * (1 - sigmoids)).mul(counted).sum(1)
        return sigmoids.mul(counted).sum(1), derivative.detach()


REDUCTIONS.register("sigmoid", Sigmoid)
