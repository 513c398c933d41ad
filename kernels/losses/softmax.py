"""Softmax over all labels, with every positive a term of its own, or decoupled from the query's other positives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.rows import Options, mean_over_rows, row_logsumexp
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

    Arguments, errors and result as in `decoupled_softmax`.
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, eq. 3.
    """
    negative_logsumexp, positive_scores = label_statistics(
        queries, labels, positives, temperature, log_inclusion=log_inclusion, **options
    )
    positive_logsumexp = row_logsumexp(positive_scores, positives)[positives.rows]
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
    return mean_over_rows(softplus(negative_logsumexp[positives.rows] - positive_scores), positives)


LOSSES.register("softmax", Loss(softmax))
LOSSES.register("decoupled_softmax", Loss(decoupled_softmax))
