"""The sum of softplus over all labels, which binary cross-entropy is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.reductions.reduction import REDUCTIONS, Reduction, Sums
from xmc.kernels.softplus import softplus

__all__ = ["Softplus"]


class Softplus(Reduction):
    """Σ_j log(1 + exp(s_ij)) over all labels."""

    takes_positives = True
    device_module = "xmc.kernels.triton_tiles.reductions.softplus"

    def add(self, sums: Sums, block: slice, scores: Tensor) -> None:
        """Weights σ(s_ij)."""
        sums.value[block] += softplus(scores).sum(1)
        scores.sigmoid_()

    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        """σ(s_ij)."""
        return scores.sigmoid_()

    def gradient_into(self, value: Tensor, block: slice, scores: Tensor, out: Tensor) -> Tensor:
        """The sigmoid is written to `out` at once."""
        return torch.sigmoid(scores, out=out)

    def reference(self, scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """The sum as it is written."""
        return softplus(scores).mul(counted).sum(1), scores.detach().new_zeros(len(scores))


REDUCTIONS.register("softplus", Softplus)
