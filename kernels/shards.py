"""Labels split over processes: each reduces its own scores, and what crosses are row statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmc.errors import InputError
from xmc.kernels.positives import Positives, kept_indptr
from xmc.kernels.reductions import Reduction

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

    def label_range(self, labels: int) -> slice:
        """The range of this process's labels among all, given their number."""
        if not 0 <= self.start <= self.start + labels <= self.total:
            raise InputError(
                f"A shard of {labels} labels from {self.start} on reaches outside of the {self.total} labels."
            )
        return slice(self.start, self.start + labels)

    def pairs_inside(self, pairs: Positives, labels: int) -> tuple[Positives, Tensor]:
        """The pairs whose label is one of this process's, as positions among these, and their positions in `pairs.indices`."""
        inside_range = self.label_range(labels)
        inside = (pairs.indices >= inside_range.start) & (pairs.indices < inside_range.stop)
        positions = inside.nonzero()[:, 0]
        weights, push = (None if values is None else values[positions] for values in (pairs.weights, pairs.push))
        indptr = kept_indptr(pairs.indptr, inside)
        return Positives(indptr, pairs.indices[positions] - inside_range.start, weights, push), positions

    def combine(
        self,
        reduction: Reduction,
        value: Tensor,
        derivative: Tensor,
        positive_scores: Tensor,
        positions: Tensor,
        count: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The statistics of all labels from those of each process's: (value [B], derivative [B], positive scores [count])."""
        combined: tuple[Tensor, Tensor, Tensor] = _Combine.apply(  # type: ignore[no-untyped-call]
            value, derivative, positive_scores, positions, count, reduction, self.group
        )
        return combined

    def beside(self, numbers: Tensor, width: int) -> Tensor:
        """Every process's numbers [B, w], w at most `width` and differing, side by side: [B, P · width], gaps are -inf."""
        padded = numbers.new_full((len(numbers), width), -torch.inf)
        padded[:, : numbers.shape[1]] = numbers
        return _of_all_processes(padded, self.group).transpose(0, 1).flatten(1)


class _Combine(torch.autograd.Function):
    """Every process goes on to compute the same loss, so each already has the gradient of what was combined."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        derivative: Tensor,
        positive_scores: Tensor,
        positions: Tensor,
        count: int,
        reduction: Reduction,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        scores = positive_scores.new_zeros(count)
        scores[positions] = positive_scores
        dist.all_reduce(scores, group=group)
        values = _of_all_processes(value, group)
        derivatives = None if reduction.shift is None else _of_all_processes(derivative, group)
        combined = reduction.combine(values, derivatives)
        ctx.save_for_backward(value, combined.value, positions)
        ctx.reduction = reduction
        ctx.mark_non_differentiable(combined.derivative)
        return combined.value, combined.derivative, scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor, positive_gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, total, positions = ctx.saved_tensors
        value_gradient = gradient * ctx.reduction.combine_gradient(value, total)
        return value_gradient, None, positive_gradient[positions], None, None, None, None


def _of_all_processes(numbers: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The same numbers [B] of each of P processes, [P, B]."""
    numbers = numbers.contiguous()
    gathered = [torch.empty_like(numbers) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, numbers, group=group)
    return torch.stack(gathered)
