"""Sequences of one micro-batch as a rectangle: token ids padded at the end, and what the backbone may attend to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.encoders.transfer import on_device
from xmc.encoders.transformer.arrangement import Arranged

__all__ = ["attention_mask_of", "pad"]


def pad(
    values: npt.NDArray[np.unsignedinteger],
    lengths: npt.NDArray[np.int64],
    padding: int,
    device: torch.device,
    bidirectional: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Arranged:
    """A row for each of n sequences, padded at the end with the token id `padding`; one column at least.

    values: token ids [T] of all sequences one after another. lengths: int64 [n]. dtype: of the backbone.
    """
    mask = np.arange(max(1, int(lengths.max(initial=0))))[None, :] < lengths[:, None]
    ids = np.full(mask.shape, padding, np.int64)
    ids[mask] = values
    seen = attention_mask_of(on_device(mask, device), bidirectional, dtype)
    places = on_device(np.flatnonzero(mask), device)
    return Arranged(on_device(ids, device), len(values), places, {"attention_mask": seen})


def attention_mask_of(mask: Tensor, bidirectional: bool, dtype: torch.dtype) -> Tensor:
    """The attention mask that a backbone is given, for sequences of bool [n, T] that are not padding.

    An int64 mask [n, T], with which a decoder's token sees those before it; or, if `bidirectional`, a mask [n, 1, T, T] of
    `dtype` that is added to attention scores: each token sees all tokens. A backbone takes four dimensions as they are, in
    place of its causal mask. Attention over nothing is not a number, nor is its gradient: an empty sequence attends to one
    padding token.
    """
    seen = mask.clone()
    seen[:, 0] = True
    if not bidirectional:
        return seen.long()
    closed = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    closed.masked_fill_(~seen, torch.finfo(dtype).min)
    return closed[:, None, None, :].expand(-1, 1, seen.shape[1], -1)
