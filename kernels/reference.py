"""Dense float64 reference of every operation, in the plainest torch: for tests and benchmarks, not for use."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.positives import Positives

__all__ = ["label_statistics"]


def label_statistics(
    queries: Tensor, labels: Tensor, positives: Positives, temperature: Tensor, label_offsets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See xmc.kernels.statistics.label_statistics; holds all B x L scores, in float64, and leaves gradients to torch."""
    scores = queries.double() @ labels.double().T / temperature.double()
    if label_offsets is not None:
        scores = scores + label_offsets.double()
    rows, columns = positives.rows, positives.indices.long()
    is_positive = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    is_positive[rows, columns] = True
    negatives = scores.masked_fill(is_positive, -torch.inf)
    has_negatives = ~is_positive.all(1)
    # A row without negatives is cut out before the reduction: the gradient of logsumexp over nothing is NaN.
    negative_logsumexp = torch.full_like(scores[:, 0], -torch.inf) if scores.shape[1] else scores.sum(1) - torch.inf
    negative_logsumexp = negative_logsumexp.masked_scatter(has_negatives, negatives[has_negatives].logsumexp(1))
    return negative_logsumexp, scores[rows, columns]
