"""Labels split over processes: each reduces its own scores, and what crosses are row statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmc.errors import InputError
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import LogSumExp, Reduction

__all__ = ["LabelShard"]


@dataclass(frozen=True)
class LabelShard:
    """This process holds the labels [start, start + n) of `total`; the processes of `group` hold all of them together.

    Each process gives a loss all queries and its own labels; positives, excluded pairs, label_bias and log_inclusion are
    about all labels. The loss is then the same in every process, as of one process that holds all labels. After backward
    the gradient of a process's labels is whole; those of queries, temperature and bias are the part that comes from its
    labels, to be summed over the group by whoever distributed them.
    """

    start: int
    total: int
    group: dist.ProcessGroup | None = None

    def own(self, labels: int) -> slice:
        """The rows of this process, given how many labels it holds."""
        if not 0 <= self.start <= self.start + labels <= self.total:
            raise InputError(
                f"A shard of {labels} labels from {self.start} on reaches outside of the {self.total} labels."
            )
        return slice(self.start, self.start + labels)

    def own_pairs(self, pairs: Positives, labels: int) -> tuple[Positives, Tensor]:
        """The pairs whose label is one of this process's, as positions among these, and their places in `pairs.indices`."""
        own = self.own(labels)
        inside = (pairs.indices >= own.start) & (pairs.indices < own.stop)
        before = torch.nn.functional.pad(inside.cumsum(0), (1, 0))
        places = inside.nonzero()[:, 0]
        weights = None if pairs.weights is None else pairs.weights[places]
        return Positives(before[pairs.indptr], pairs.indices[places] - own.start, weights), places

    def combine(
        self,
        reduction: Reduction,
        value: Tensor,
        derivative: Tensor,
        positive_scores: Tensor,
        places: Tensor,
        count: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The statistics of all labels from those of each process's: (value [B], derivative [B], positive scores [count])."""
        combined: tuple[Tensor, Tensor, Tensor] = _Combine.apply(  # type: ignore[no-untyped-call]
            value, derivative, positive_scores, places, count, isinstance(reduction, LogSumExp), self.group
        )
        return combined

    def best(self, scores: Tensor, count: int) -> Tensor:
        """The `count` highest of all processes' scores [B, k], k differing, best first; -inf where there are fewer."""
        padded = scores.new_full((len(scores), count), -torch.inf)
        padded[:, : scores.shape[1]] = scores[:, :count]
        parts = [torch.empty_like(padded) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat(parts, dim=1).topk(count, dim=1).values


class _Combine(torch.autograd.Function):
    """Every process goes on to compute the same loss, so each already has the gradient of what was combined."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        derivative: Tensor,
        positive_scores: Tensor,
        places: Tensor,
        count: int,
        logarithms: bool,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scores = positive_scores.new_zeros(count)
        scores[places] = positive_scores
        dist.all_reduce(scores, group=group)
        total, slope = value.clone(), derivative.clone()
        if logarithms:
            dist.all_reduce(total, dist.ReduceOp.MAX, group=group)
            highest = torch.where(total == -torch.inf, 0.0, total)
            total = (value - highest).exp_()
            dist.all_reduce(total, group=group)
            total = total.log_().add_(highest)
        else:
            dist.all_reduce(total, group=group)
            dist.all_reduce(slope, group=group)
        ctx.save_for_backward(value, total, places)
        ctx.logarithms = logarithms
        ctx.mark_non_differentiable(slope)
        return total, slope, scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor, positive_gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, total, places = ctx.saved_tensors
        if ctx.logarithms:
            shift = torch.where(total == -torch.inf, 0.0, total)
            gradient = gradient * (value - shift).exp()
        return gradient, None, positive_gradient[places], None, None, None, None
