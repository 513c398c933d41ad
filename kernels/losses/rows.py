"""What the losses share: their options, and sums and means over the entries of each row."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from xmc.kernels.budget import TileBytes
from xmc.kernels.positives import Positives
from xmc.kernels.shards import LabelShard

__all__ = [
    "Options",
    "label_count",
    "log_of_sum",
    "mean_over_counted_rows",
    "mean_over_rows",
    "row_logsumexp",
    "row_sum",
    "weights_of",
]


class Options(TypedDict, total=False):
    """What every loss over all labels takes besides its own arguments; see `label_statistics`.

    label_bias: [L], added to every score of that label. exclude: pairs that count nowhere. tile_bytes: largest size of a
    tile of scores. keep_bytes: of weights kept for the backward pass. negatives_dtype: "float8" for an approximate sum.
    impl: the engine. shard: which part of the labels this process has, where they are split over processes.
    """

    label_bias: Tensor | None
    exclude: Positives | None
    tile_bytes: TileBytes
    keep_bytes: int
    negatives_dtype: str | None
    impl: str | None
    shard: LabelShard | None


def label_count(labels: Tensor, options: Options) -> int:
    """Number of labels in all processes together."""
    shard = options.get("shard")
    return len(labels) if shard is None else shard.total


def row_sum(terms: Tensor, positives: Positives) -> Tensor:
    """Sum of the terms [nnz] of each row, [B]."""
    return terms.new_zeros(len(positives)).index_add(0, positives.rows, terms)


def row_logsumexp(terms: Tensor, positives: Positives) -> Tensor:
    """Log-sum-exp of the terms [nnz] of each row, [B]; -inf, without gradient, for a row without terms."""
    rows = positives.rows
    highest = torch.full((len(positives),), -torch.inf, dtype=terms.dtype, device=terms.device)
    highest = highest.scatter_reduce(0, rows, terms.detach(), "amax").clamp_min(torch.finfo(terms.dtype).min)
    return log_of_sum(row_sum((terms - highest[rows]).exp(), positives), highest)


def log_of_sum(total: Tensor, highest: Tensor) -> Tensor:
    """log(total) + highest, of exponentials relative to `highest`; -inf, without gradient, for a total of 0."""
    empty = total == 0
    return torch.where(empty, -torch.inf, torch.where(empty, 1.0, total).log() + highest)


def weights_of(positives: Positives, like: Tensor) -> Tensor:
    """The pulls [nnz], ones where there are none."""
    return torch.ones_like(like) if positives.weights is None else positives.weights.to(like)


def mean_over_rows(terms: Tensor, positives: Positives, pushed: Tensor | None = None) -> Tensor:
    """Sum of the terms [nnz] of each row by pull, over the row's pull, then the mean over the rows that have any.

    pushed: added to the pull times the term of each entry, [nnz].
    """
    weights = weights_of(positives, terms)
    totals = row_sum(weights, positives)
    divisors = totals[positives.rows].clamp_min(torch.finfo(terms.dtype).tiny)
    total = torch.dot(weights / divisors, terms)
    if pushed is not None:
        total = total + torch.where(totals[positives.rows] > 0, pushed / divisors, 0.0).sum()
    return total / (totals > 0).sum().clamp_min(1)


def mean_over_counted_rows(values: Tensor, positives: Positives) -> Tensor:
    """Mean of the values [B] over the rows that have positives of any weight."""
    counted = row_sum(weights_of(positives, values.new_empty(len(positives.indices))), positives) > 0
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp_min(1)
