"""One-vs-all binary cross-entropy over all labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.devices import values_are_free
from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.rows import Options, label_count, mean_over_counted_rows, row_sum, weights_of
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import Softplus
from xmc.kernels.row_statistics import row_statistics

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["binary_cross_entropy"]


def binary_cross_entropy(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    propensities: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Every label its own yes-or-no question, summed over labels, averaged over queries.

    mean_i [ Σ_j softplus(s_ij) - Σ_{p∈P_i} y_ip s_ip ], s_ij = q_i·z_j / τ + b_j, the target y_ip the relevance weight, 1
    where there are none. The sum over all labels streams; the positives correct it sparsely. A row without positives (or
    with weights of sum 0) does not count.

    propensities: optional [L], in (0, 1], the probability that a relevant label was marked as one. y_ip is then divided by
    it, which makes the loss an unbiased estimate of the loss on complete marks: y/p · ℓ⁺ + (1 - y/p) · ℓ⁻ with
    ℓ⁺ = softplus(-s) and ℓ⁻ = softplus(s) is softplus(s) - (y/p) s (Qaraei et al., Convex Surrogates for Unbiased Loss
    Functions in Extreme Classification with Missing Labels, WWW 2021; propensities of Jain et al., KDD 2016).
    It is not bounded from below: a positive of small propensity is pulled without end, so keep scores bounded.

    Other arguments and errors as in `decoupled_softmax`; InputError also for propensities outside of (0, 1]. On a GPU those are
    not looked for: the loss of a positive that has one is NaN.
    """
    if propensities is not None:
        count = label_count(labels, options)
        if propensities.shape != (count,):
            raise InputError(f"propensities must have shape ({count},), not {tuple(propensities.shape)}.")
        allowed = (propensities > 0) & (propensities <= 1)
        if not values_are_free(propensities):
            propensities = torch.where(allowed, propensities, torch.nan)
        elif not bool(allowed.all()):
            raise InputError("propensities must be in (0, 1].")
    total, _, positive_scores = row_statistics(Softplus(), queries, labels, positives, temperature, **options)
    targets = weights_of(positives, positive_scores)
    if propensities is not None:
        targets = targets / propensities.to(targets)[positives.indices.long()]
    return mean_over_counted_rows(total - row_sum(targets * positive_scores, positives), positives)


LOSSES.register("binary_cross_entropy", Loss(binary_cross_entropy, over_all_labels=True))
