"""The float64 truth of attention over segments: all scores of all tokens at once, gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.kernels.attention.options import AttentionOptions, visible

__all__ = ["segment_attention"]


def segment_attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, options: AttentionOptions, kept: Tensor | None = None
) -> Tensor:
    """Attention of a packed run [T, H, D] in float64, in O(H·T²) memory.

    key, value: [T, G, D], G a divisor of H. offsets: [n + 1]. kept: bool [H, T, T], the probabilities that dropout leaves;
    without it there is no dropout.
    """
    group = query.shape[1] // key.shape[1]
    query, key, value = (tensor.double() for tensor in (query, key, value))
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    positions = torch.arange(len(query), device=query.device)
    segments = torch.searchsorted(offsets.long(), positions, right=True)
    mask = (segments[:, None] == segments[None, :]) & visible(positions, positions, options)
    scores = torch.einsum("ihd,jhd->hij", query, key) * options.scale
    probabilities = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    if kept is not None:
        probabilities = probabilities * kept / (1 - options.dropout)
    return torch.einsum("hij,jhd->ihd", probabilities, value)
