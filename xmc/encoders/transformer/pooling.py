"""From the hidden states of a sequence's tokens to one vector."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["POOLINGS", "pool"]

POOLINGS = ("mean", "cls", "last", "eos")


def pool(hidden: Tensor, mask: Tensor, images: Tensor | None, kind: str) -> Tensor:
    """Vectors [n, W] of n sequences; zero for one without tokens.

    hidden: [n, T, W], padded at the end. mask: bool [n, T], what is not padding. images: bool [n, T], which tokens are images.
    kind: "mean" over all tokens; "cls", the first that is no image; "last" and "eos", the last.
    """
    weights = mask[:, :, None].to(hidden)
    if kind == "mean":
        return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1.0)
    if kind == "cls":
        positions = torch.zeros_like(mask[:, 0], dtype=torch.int64)
        if images is not None:
            positions = (mask & ~images).int().argmax(1)
    else:
        positions = mask.sum(1).clamp_min(1) - 1
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, positions] * weights[rows, positions]
