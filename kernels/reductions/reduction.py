"""What a member of the family of reductions is, and the family: row statistics by name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from xmc.registry import Registry

__all__ = ["LOG2_E", "REDUCTIONS", "Combined", "Reduction", "Sums"]

LOG2_E = 1 / math.log(2)


@dataclass
class Sums:
    """Row sums under way, each [B]: `value`, its `derivative`, and for the log-sum-exp the largest score so far."""

    value: Tensor
    derivative: Tensor
    maximum: Tensor


class Combined(NamedTuple):
    """The statistic of all labels from those of P parts of the labels.

    value [B], and derivative [B], zero where there is no shift.
    """

    value: Tensor
    derivative: Tensor


class Reduction(ABC):
    """A row statistic Σ_j f(s_ij), or its logarithm, with all that engines need of it.

    Torch tiles call `start`, `add` for each tile and `finish`, and `gradient` on the way back; Triton tiles run the device
    functions of `device_module`; parts of the labels, of tiles or of processes, go through `combine`; and `reference` is the
    float64 truth that all of them are tested against. A score of -inf counts nothing. Methods work in place: a tile of
    scores is consumed.
    """

    takes_positives: ClassVar[bool]
    """Whether positives are part of the sum, or only labels that are not positive."""

    device_module: ClassVar[str | None] = None
    """Module of the device functions `reduce_tile` and `score_gradient`; None where there is only torch's part."""

    logarithmic: ClassVar[bool] = False
    """Whether the value is the logarithm of a sum, so that parts of it are combined by a log-sum-exp."""

    shift: Tensor | None = None
    """t [B], added to a row's scores; with one, the derivative of the sum in it is computed as well. None for no shift."""

    slope: float = 1.0
    """α, the factor of shifted scores."""

    @property
    def unit(self) -> float:
        """Factor of the scores that device functions take: α log2(e), with which an exponential is one of base 2."""
        return self.slope * LOG2_E

    def detached(self) -> Reduction:
        """The same without a graph of its shift, to be kept for the backward pass."""
        return self

    def start(self, rows: int, like: Tensor, dtype: torch.dtype) -> Sums:
        """Empty sums for `rows` queries, of a dtype, on the device of `like`."""
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

    def gradient_into(self, value: Tensor, block: slice, scores: Tensor, out: Tensor) -> Tensor:
        """The same in a buffer `out` [h, w], which may be of a lower precision; a reduction may do both in one pass."""
        return out.copy_(self.gradient(value, block, scores))

    def combine(self, values: Tensor, derivatives: Tensor | None) -> Combined:
        """The statistic of all labels from those of P parts, [P, B] each; sums add up. The arguments are consumed."""
        value = values.sum(0)
        if derivatives is None:
            return Combined(value, torch.zeros_like(value))
        return Combined(value, derivatives.sum(0))

    def combine_gradient(self, value: Tensor, total: Tensor) -> Tensor:
        """The derivative [B] of the combined statistic `total` [B] in the statistic `value` [B] of one part."""
        return torch.ones_like(value)

    def row_constant(self, value: Tensor) -> Tensor:
        """What the device function `score_gradient` is given of each row, [B], once multiplied by `unit`."""
        return value if self.shift is None else self.shift

    @abstractmethod
    def reference(self, scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """The value and its derivative, [B] each, of all scores, float64 [B, L], where `counted`, bool [B, L], says so.

        Plain torch, differentiable in the scores and the shift; the derivative is not, and is zero where there is no shift.
        """


REDUCTIONS: Registry[type[Reduction]] = Registry("reduction")
"""The reductions by name; a file of a reduction registers it here."""
