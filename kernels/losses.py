"""Losses over all labels, as formulas on the streaming row statistics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from xmc.kernels.statistics import DEFAULT_TILE_BYTES, Positives, label_statistics

__all__ = ["decoupled_softmax", "softmax"]


def softmax(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    log_inclusion: Tensor | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    impl: str | None = None,
) -> Tensor:
    """Softmax over all labels, every positive its own term (InfoNCE with several positives; DEXML, eq. 3).

    mean_i (1/|P_i|) Σ_{p∈P_i} [ log Σ_j exp(s_ij) - s_ip ], s_ij = q_i·z_j / τ. With relevance weights w the inner
    mean is Σ_p w_p [...] / Σ_p w_p. A row without positives (or with weights of sum 0) does not count.

    Arguments as in `decoupled_softmax`.
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, eq. 3.
    """
    negative_logsumexp, positive_scores = _statistics(
        queries, labels, positives, temperature, log_inclusion, tile_bytes, impl
    )
    rows = positives.rows
    highest = torch.full_like(negative_logsumexp, -torch.inf)
    highest = highest.scatter_reduce(0, rows, positive_scores.detach(), "amax")[rows]
    partition = torch.zeros_like(negative_logsumexp).index_add(0, rows, (positive_scores - highest).exp())
    positive_logsumexp = partition[rows].log() + highest
    return _mean_over_rows(_logaddexp_minus(negative_logsumexp[rows], positive_logsumexp, positive_scores), positives)


def decoupled_softmax(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 0.05,
    *,
    log_inclusion: Tensor | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    impl: str | None = None,
) -> Tensor:
    """Decoupled softmax: a positive competes with the negatives only, never with the query's other positives.

    mean_i (1/|P_i|) Σ_{p∈P_i} [ logaddexp(N_i, s_ip) - s_ip ], N_i = log Σ_{j∉P_i} exp(s_ij). With relevance weights w the
    inner mean is Σ_p w_p [...] / Σ_p w_p. A row without positives (or with weights of sum 0) does not count.

    Parameters
    ----------
    queries [B, D], labels [L, D], positives, temperature, tile_bytes, impl: as in `label_statistics`, with its errors.
    log_inclusion: [L], where `labels` is a random sample of the label set: log π_j, π_j the probability that label j is
        in the sample. A label's exp(s_ij) then counts 1/π_j times among the negatives, which makes their sum an unbiased
        estimate of the sum over all labels (Horvitz and Thompson 1952; the log-q correction). A positive's own score
        stays as it is.

    Returns a scalar, float32 (float64 for float64 input and for the reference).
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, eq. 4.
    """
    negative_logsumexp, positive_scores = _statistics(
        queries, labels, positives, temperature, log_inclusion, tile_bytes, impl
    )
    return _mean_over_rows(softplus(negative_logsumexp[positives.rows] - positive_scores), positives)


def _statistics(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor,
    log_inclusion: Tensor | None,
    tile_bytes: int,
    impl: str | None,
) -> tuple[Tensor, Tensor]:
    offsets = None if log_inclusion is None else -log_inclusion
    negative_logsumexp, positive_scores = label_statistics(
        queries, labels, positives, temperature, label_offsets=offsets, tile_bytes=tile_bytes, impl=impl
    )
    if log_inclusion is not None:
        positive_scores = positive_scores + log_inclusion[positives.indices.long()]
    return negative_logsumexp, positive_scores


def _logaddexp_minus(negatives: Tensor, positives: Tensor, scores: Tensor) -> Tensor:
    """logaddexp(negatives, positives) - scores, with a gradient that is finite where `negatives` is -inf."""
    return softplus(negatives - positives) + positives - scores


def _mean_over_rows(terms: Tensor, positives: Positives) -> Tensor:
    """Weighted mean of the terms [nnz] within each row, then the mean over the rows that have any weight."""
    rows = positives.rows
    weights = torch.ones_like(terms) if positives.weights is None else positives.weights.to(terms)
    totals = terms.new_zeros(len(positives)).index_add(0, rows, weights)
    counted = (totals > 0).sum().clamp_min(1)
    shares = weights / totals[rows].clamp_min(torch.finfo(terms.dtype).tiny)
    return torch.dot(shares, terms) / counted
