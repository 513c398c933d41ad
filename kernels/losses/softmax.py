"""Softmax over all labels, with every positive a term of its own, or decoupled from the query's other positives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.pushes import logaddexp, other_entries_logsumexp, pushed_scores
from xmc.kernels.losses.rows import Options, mean_over_rows, row_logsumexp, weights_of
from xmc.kernels.positives import Positives
from xmc.kernels.softplus import softplus
from xmc.kernels.statistics import label_statistics

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["decoupled_softmax", "softmax"]


def softmax(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    log_inclusion: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Softmax over all labels, every positive its own term (InfoNCE with several positives; DEXML, eq. 3).

    mean_i (1/|P_i|) Σ_{p∈P_i} [ log Σ_j exp(s_ij) - s_ip ], s_ij = q_i·z_j / τ + b_j. With relevance weights w the inner
    mean is Σ_p w_p [...] / Σ_p w_p. A row without positives (or with weights of sum 0) does not count.

    Entries of pull y and push n: the inner mean is by y, and entry e counts d_e times in the sum over all labels: max(1, n_e)
    times where y_e > 0, since a positive counts once whatever its push, and n_e times where y_e = 0: a rejected pair of push
    κ κ times, a pair without pull and push not at all. In a sample, the exp(s_e) of an entry without a pull is divided by
    π_e, as any negative's; that of a positive is not.

    Arguments, errors and result as in `decoupled_softmax`.
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, eq. 3.
    """
    negative_logsumexp, positive_scores = label_statistics(
        queries, labels, positives, temperature, log_inclusion=log_inclusion, **options
    )
    counted = positive_scores
    if positives.push is not None:
        pushed = pushed_scores(positives, positives.push, positive_scores, log_inclusion)
        counted = positive_scores + positives.push.to(positive_scores).clamp_min(1).log()
        counted = torch.where(weights_of(positives, positive_scores) > 0, counted, pushed)
    positive_logsumexp = row_logsumexp(counted, positives)[positives.rows]
    if positives.push is not None:  # -inf only in rows that do not count
        positive_logsumexp = torch.where(positive_logsumexp == -torch.inf, 0.0, positive_logsumexp)
    # logaddexp of the two, with a gradient that is finite where there are no negatives
    partition = softplus(negative_logsumexp[positives.rows] - positive_logsumexp) + positive_logsumexp
    return mean_over_rows(partition - positive_scores, positives)


def decoupled_softmax(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    log_inclusion: Tensor | None = None,
    **options: Unpack[Options],
) -> Tensor:
    """Decoupled softmax: a positive competes with the negatives only, never with the query's other positives.

    mean_i (1/|P_i|) Σ_{p∈P_i} [ logaddexp(N_i, s_ip) - s_ip ], N_i = log Σ_{j∉P_i} exp(s_ij), s_ij = q_i·z_j / τ + b_j.
    With relevance weights w the inner mean is Σ_p w_p [...] / Σ_p w_p. A row without positives (or with weights of sum 0)
    does not count.

    Entries of pull y and push n: mean_i Σ_e y_e [ logaddexp(N_ie, s_ie) - s_ie ] / Σ_e y_e, where N_ie is
    log( exp(N_i) + Σ_{e' ≠ e} n_e' exp(s_ie') / π_e' ): the row's other entries compete for e by their push, and its own push
    is left out. π is 1 but in a sample (`log_inclusion`). P_i are all entries; one of push 0 competes for nothing.

    Parameters
    ----------
    queries [B, D], labels [L, D], positives, temperature, log_inclusion: as in `label_statistics`, with its errors.
    options: label_bias, exclude, tile_bytes, keep_bytes, negatives_dtype, impl, as in `label_statistics`.

    Returns a scalar, float32 (float64 for float64 input and for the reference).
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, eq. 4.

    >>> import torch
    >>> queries, labels = torch.tensor([[1.0]]), torch.tensor([[2.0], [1.0], [0.0]])
    >>> positives = Positives.from_lists([[0, 1]])
    >>> round(decoupled_softmax(queries, labels, positives, temperature=1.0).item(), 4)  # of log(1+e⁻²), log(1+e⁻¹)
    0.2201
    """
    negative_logsumexp, positive_scores = label_statistics(
        queries, labels, positives, temperature, log_inclusion=log_inclusion, **options
    )
    negatives = negative_logsumexp[positives.rows]
    if positives.push is not None:
        pushed = pushed_scores(positives, positives.push, positive_scores, log_inclusion)
        negatives = logaddexp(negatives, other_entries_logsumexp(pushed, positives))
    return mean_over_rows(softplus(negatives - positive_scores), positives)


LOSSES.register("softmax", Loss(softmax))
LOSSES.register("decoupled_softmax", Loss(decoupled_softmax))
