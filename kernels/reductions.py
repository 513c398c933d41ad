"""What a row of scores is reduced to, a tile at a time: log-sum-exp, sums of sigmoids, sums of softplus.

Each reduction says how a tile of scores is added to the row sums, and what the gradient of the row's value is with
respect to a score. A score of -inf counts nothing in any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from xmc.kernels.softplus import softplus

__all__ = ["LogSumExp", "Reduction", "Sigmoid", "Softplus", "Sums"]


@dataclass
class Sums:
    """Row sums under way, each [B]: `value`, its `derivative`, and for the log-sum-exp the largest score so far."""

    value: Tensor
    derivative: Tensor
    maximum: Tensor


class Reduction(ABC):
    """A row statistic Σ_j f(s_ij), or its logarithm. Works in place: a tile of scores is consumed."""

    takes_positives: ClassVar[bool]
    """Whether positives are part of the sum, or only labels that are not positive."""

    def start(self, rows: int, like: Tensor, dtype: torch.dtype) -> Sums:
        """Empty sums for `rows` queries."""
        zeros = like.new_zeros((3, rows), dtype=dtype)
        return Sums(zeros[0], zeros[1], zeros[2].fill_(-torch.inf))

    @abstractmethod
    def add(self, sums: Sums, block: slice, scores: Tensor) -> Tensor | None:
        """Add a tile [h, w] of scores to the sums of the rows `block`, and turn it into the weights f'(s_ij).

        Where the unit of the weights changes with the tile, returns the factor [h] that brings earlier ones to it.
        """

    def finish(self, sums: Sums, weighted: Tensor | None) -> Tensor:
        """The statistic [B]; `weighted` [B, D], the sum of embeddings by weight, is brought to its final unit in place."""
        return sums.value

    @abstractmethod
    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        """Turn a tile of scores into f'(s_ij) (for the log-sum-exp: the softmax), given the finished `value` [B]."""


class LogSumExp(Reduction):
    """N_i = log Σ_j exp(s_ij) over the labels that are not positive."""

    takes_positives = False

    def add(self, sums: Sums, block: slice, scores: Tensor) -> Tensor:
        """Weights exp(s_ij - m_i), with the running maximum m_i; the rescaling of Milakov and Gimelshein (2018)."""
        highest = torch.maximum(sums.maximum[block], scores.amax(1))
        # A row of positives only has no finite maximum; any finite shift keeps its exponentials at zero.
        shift = torch.where(highest == -torch.inf, 0.0, highest)
        rescale = (sums.maximum[block] - shift).exp_()
        scores.sub_(shift[:, None]).exp_()
        sums.value[block] = sums.value[block] * rescale + scores.sum(1)
        sums.maximum[block] = highest
        return rescale

    def finish(self, sums: Sums, weighted: Tensor | None) -> Tensor:
        """The log-sum-exp; `weighted` becomes the mean of the label embeddings under the softmax."""
        if weighted is not None:
            weighted /= sums.value.clamp_min(torch.finfo(weighted.dtype).tiny)[:, None]
        return sums.value.log() + torch.where(sums.maximum == -torch.inf, 0.0, sums.maximum)

    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        """The softmax over the negatives, exp(s_ij - N_i)."""
        shift = torch.where(value[block] == -torch.inf, 0.0, value[block])
        return scores.sub_(shift[:, None]).exp_()


@dataclass(frozen=True)
class Sigmoid(Reduction):
    """Σ_j σ(α (s_ij + t_i)) over all labels, and its derivative in t_i. shift: t [B]; slope: α."""

    takes_positives = True
    shift: Tensor
    slope: float

    def add(self, sums: Sums, block: slice, scores: Tensor) -> None:
        """Weights α σ (1 - σ)."""
        scores.add_(self.shift[block, None]).mul_(self.slope).sigmoid_()
        sums.value[block] += scores.sum(1)
        sums.derivative[block] += torch.addcmul(scores, scores, scores, value=-1, out=scores).mul_(self.slope).sum(1)

    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        """α σ (1 - σ)."""
        scores.add_(self.shift[block, None]).mul_(self.slope).sigmoid_()
        return torch.addcmul(scores, scores, scores, value=-1, out=scores).mul_(self.slope)


class Softplus(Reduction):
    """Σ_j log(1 + exp(s_ij)) over all labels."""

    takes_positives = True

    def add(self, sums: Sums, block: slice, scores: Tensor) -> None:
        """Weights σ(s_ij)."""
        sums.value[block] += softplus(scores).sum(1)
        scores.sigmoid_()

    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        """σ(s_ij)."""
        return scores.sigmoid_()
