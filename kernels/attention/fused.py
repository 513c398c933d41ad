"""A piece by PyTorch's fused attention for CPUs, which holds no scores in memory; no dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.attention.options import AttentionOptions, visible
from xmc.kernels.attention.pieces import Piece

__all__ = ["backward", "forward"]

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def forward(
    query: Tensor, key: Tensor, value: Tensor, piece: Piece, options: AttentionOptions
) -> tuple[Tensor, Tensor]:
    """Values [count, H, rows, D] and log-sum-exp [count, H, rows] of a piece's scores."""
    mask = _mask(query, piece, options)
    causal = options.causal and mask is None
    values, logsumexp = _FORWARD(query, key, value, 0.0, causal, attn_mask=mask, scale=options.scale)
    return values, logsumexp


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    piece: Piece,
    options: AttentionOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value of a piece, from those of its values."""
    mask = _mask(query, piece, options)
    causal = options.causal and mask is None
    gradients: tuple[Tensor, Tensor, Tensor] = _BACKWARD(
        gradient, query, key, value, out, logsumexp.contiguous(), 0.0, causal, attn_mask=mask, scale=options.scale
    )
    return gradients


def _mask(query: Tensor, piece: Piece, options: AttentionOptions) -> Tensor | None:
    """What is added to the scores of a piece in which a window hides tokens, [rows, keys]."""
    if not options.narrows(piece.length):
        return None
    seen = visible(torch.arange(piece.top, piece.bottom), torch.arange(piece.left, piece.right), options)
    return torch.zeros(seen.shape, dtype=query.dtype).masked_fill_(~seen, float("-inf"))
