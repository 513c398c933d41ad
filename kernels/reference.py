"""Dense float64 reference of every operation, in the plainest torch: for tests and benchmarks, not for use."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from xmc.kernels.positives import Positives
from xmc.kernels.problem import Problem
from xmc.kernels.reductions import Reduction

__all__ = ["block_moments", "mask_of", "row_statistics", "topk_inner_product"]


def row_statistics(
    reduction: Reduction,
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: Tensor,
    label_bias: Tensor | None,
    exclude: Positives | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See xmc.kernels.statistics.row_statistics; holds all B x L scores, and leaves gradients to torch."""
    scores = queries.double() @ labels.double().T / temperature.double()
    if label_bias is not None:
        scores = scores + label_bias.double()
    is_positive = mask_of(positives, scores)
    counted = ~mask_of(exclude, scores) | is_positive if exclude is not None else torch.ones_like(is_positive)
    if not reduction.takes_positives:
        counted = counted & ~is_positive
    value, derivative = reduction.reference(scores, counted)
    return value, derivative, scores[positives.rows, positives.indices.long()]


def block_moments(problem: Problem, queries: Tensor, labels: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.row_statistics.block_moments: each label is a block."""
    scores = queries.double() @ labels.double().T * problem.scale
    if bias is not None:
        scores = scores + bias.double()
    slope, shift = problem.reduction.slope, problem.reduction.shift
    assert shift is not None
    shift = shift.double()[:, None]
    logarithms = torch.where(shift.isnan(), slope * scores, logsigmoid(slope * (scores + shift)))
    entries = problem.entries
    if entries.slots is not None:
        excluded = entries.slots < 0
        logarithms[entries.rows[excluded], entries.columns[excluded]] = -torch.inf
    return logarithms.T, 2 * logarithms.T


def topk_inner_product(
    queries: Tensor, labels: Tensor, k: int, label_bias: Tensor | None = None, exclude: Positives | None = None
) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.topk.topk_inner_product: a full stable sort."""
    scores = queries.double() @ labels.double().T
    if label_bias is not None:
        scores = scores + label_bias.double()
    if exclude is not None:
        scores = scores.masked_fill(mask_of(exclude, scores), -torch.inf)
    values, order = scores.sort(dim=1, descending=True, stable=True)
    values, order = values[:, :k], order[:, :k].clone()
    order[values == -torch.inf] = -1
    return values, order


def mask_of(pairs: Positives, scores: Tensor) -> Tensor:
    """Bool [B, L], true for the pairs."""
    mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    mask[pairs.rows, pairs.indices.long()] = True
    return mask
