"""Dense float64 reference of every operation, in the plainest torch: for tests and benchmarks, not for use."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.positives import Positives
from xmc.kernels.reductions import LogSumExp, Reduction, Sigmoid
from xmc.kernels.softplus import softplus

__all__ = ["mask_of", "row_statistics", "topk_inner_product"]


def row_statistics(
    reduction: Reduction,
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: Tensor,
    label_bias: Tensor | None,
    shift: Tensor | None,
    exclude: Positives | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See xmc.kernels.statistics.row_statistics; holds all B x L scores, and leaves gradients to torch."""
    scores = queries.double() @ labels.double().T / temperature.double()
    if label_bias is not None:
        scores = scores + label_bias.double()
    is_positive = mask_of(positives, scores)
    counted = ~mask_of(exclude, scores) | is_positive if exclude is not None else torch.ones_like(is_positive)
    zeros = scores.detach().new_zeros(len(scores))
    derivative = zeros
    if isinstance(reduction, LogSumExp):
        counted = counted & ~is_positive
        some = counted.any(1)
        # A row without negatives is cut out before the reduction: the gradient of logsumexp over nothing is NaN.
        value = zeros - torch.inf
        if scores.shape[1]:
            value = value.masked_scatter(some, scores.masked_fill(~counted, -torch.inf)[some].logsumexp(1))
    elif isinstance(reduction, Sigmoid) and shift is not None:
        sigmoids = torch.sigmoid(reduction.slope * (scores + shift.double()[:, None]))
        value = sigmoids.mul(counted).sum(1)
        derivative = (reduction.slope * sigmoids * (1 - sigmoids)).mul(counted).sum(1).detach()
    else:
        value = softplus(scores).mul(counted).sum(1)
    return value, derivative, scores[positives.rows, positives.indices.long()]


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
