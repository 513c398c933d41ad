"""Entries with a push among the negatives that a log-sum-exp is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.losses.rows import log_of_sum, row_logsumexp, row_sum
from xmc.kernels.positives import Positives

__all__ = ["logaddexp", "other_entries_logsumexp", "pushed_scores"]


def pushed_scores(positives: Positives, push: Tensor, scores: Tensor, log_inclusion: Tensor | None) -> Tensor:
    """log n_e + s_e - log π_e, as which each entry stands among the negatives, [nnz]; -inf for an entry without a push.

    push: n [nnz]. scores: s [nnz]. log_inclusion: log π of all labels, see `label_statistics`; None for π = 1.
    """
    terms = scores + push.to(scores).log()
    return terms if log_inclusion is None else terms - log_inclusion.detach()[positives.indices.long()]


def other_entries_logsumexp(terms: Tensor, positives: Positives) -> Tensor:
    """For each entry the log-sum-exp of the terms [nnz] of its row but its own, [nnz]; -inf, without gradient, for no others.

    No difference cancels: where an entry's own term is not the row's largest, the largest stays in the sum, and the log-sum-exp
    without the largest is computed apart.
    """
    rows, count = positives.rows, len(terms)
    highest = torch.full((len(positives),), -torch.inf, dtype=terms.dtype, device=terms.device)
    highest = highest.scatter_reduce(0, rows, terms.detach(), "amax").clamp_min(torch.finfo(terms.dtype).min)
    places = torch.arange(count, device=terms.device)
    candidates = torch.where(terms.detach() >= highest[rows], places, count)
    first = torch.full((len(positives),), count, device=terms.device).scatter_reduce(0, rows, candidates, "amin")
    is_largest = places == first[rows]
    exponentials = (terms - highest[rows]).exp()
    largest = row_sum(torch.where(is_largest, exponentials, 0.0), positives)[rows]
    rest = torch.where(is_largest, 0.0, exponentials)
    with_largest = log_of_sum(largest + (row_sum(rest, positives)[rows] - rest), highest[rows])
    without_largest = row_logsumexp(torch.where(is_largest, -torch.inf, terms), positives)[rows]
    return torch.where(is_largest, without_largest, with_largest)


def logaddexp(left: Tensor, right: Tensor) -> Tensor:
    """log(exp(left) + exp(right)) of each element, with a gradient of 0 where both are -inf; `left` itself beside -inf."""
    limits = torch.finfo(left.dtype)
    highest = torch.maximum(left, right).detach().clamp(limits.min, limits.max)
    return log_of_sum((left - highest).exp() + (right - highest).exp(), highest)
