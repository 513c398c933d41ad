"""What the losses share: their options, and sums and means over the positives of each row."""

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
    total = row_sum((terms - highest[rows]).exp(), positives)
    filled = total > 0
    return torch.where(filled, torch.where(filled, total, 1.0).log() + highest, -torch.inf)


def weights_of(positives: Positives, like: Tensor) -> Tensor:
    """The relevance weights [nnz], ones where there are none."""
    return torch.ones_like(like) if positives.weights is None else positives.weights.to(like)


def mean_over_rows(terms: Tensor, positives: Positives) -> Tensor:
    """Weighted mean of the terms [nnz] within each row, then the mean over the rows that have any weight."""
    weights = weights_of(positives, terms)
    totals = row_sum(weights, positives)
    shares = weights / totals[positives.rows].clamp_min(torch.finfo(terms.dtype).tiny)
    return torch.dot(shares, terms) / (totals > 0).sum().clamp_min(1)


def mean_over_counted_rows(values: Tensor, positives: Positives) -> Tensor:
    """Mean of the values [B] over the rows that have positives of any weight."""
    counted = row_sum(weights_of(positives, values.new_empty(len(positives.indices))), positives) > 0
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp_min(1)
