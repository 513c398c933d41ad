"""A piece by matrix products, with dropout; its scores are written to memory, and made once more by the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.attention.options import AttentionOptions, visible
from xmc.kernels.attention.pieces import Piece

__all__ = ["backward", "forward", "generator_of"]


def generator_of(seed: Tensor | None) -> torch.Generator | None:
    """The random numbers that both passes of a call draw, piece after piece, from its seed [1]."""
    return None if seed is None else torch.Generator(seed.device).manual_seed(int(seed))


def forward(
    query: Tensor, key: Tensor, value: Tensor, piece: Piece, options: AttentionOptions, random: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Values [count, H, rows, D] and log-sum-exp [count, H, rows] of a piece's scores."""
    scores = _scores(query, key, piece, options)
    logsumexp = scores.logsumexp(-1)
    probabilities = scores.sub_(logsumexp[..., None]).exp_()
    if random is not None:
        probabilities *= _factors(scores, options, random)
    return probabilities @ value, logsumexp


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    piece: Piece,
    options: AttentionOptions,
    random: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value of a piece, from those of its values."""
    probabilities = _scores(query, key, piece, options).sub_(logsumexp[..., None]).exp_()
    weights, products = probabilities, gradient @ value.transpose(-1, -2)
    if random is not None:
        factors = _factors(probabilities, options, random)
        weights, products = probabilities * factors, products.mul_(factors)
    products -= (gradient * out).sum(-1, keepdim=True)
    products *= probabilities
    products *= options.scale
    return products @ key, products.transpose(-1, -2) @ query, weights.transpose(-1, -2) @ gradient


def _scores(query: Tensor, key: Tensor, piece: Piece, options: AttentionOptions) -> Tensor:
    scores = (query @ key.transpose(-1, -2)).mul_(options.scale)
    if options.causal or options.narrows(piece.length):
        rows = torch.arange(piece.top, piece.bottom, device=query.device)
        keys = torch.arange(piece.left, piece.right, device=query.device)
        scores.masked_fill_(~visible(rows, keys, options), float("-inf"))
    return scores


def _factors(scores: Tensor, options: AttentionOptions, random: torch.Generator) -> Tensor:
    """0 for what dropout takes away, 1 / (1 - dropout) for what it leaves."""
    return torch.empty_like(scores).bernoulli_(1 - options.dropout, generator=random).div_(1 - options.dropout)
