"""Sequences of one micro-batch as a rectangle: token ids padded at the end, and what the backbone may attend to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["attention_mask", "pad"]


def pad(
    values: npt.NDArray[np.unsignedinteger], lengths: npt.NDArray[np.int64], padding: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids int64 [n, T] of n sequences, and bool [n, T], true for what is not padding, on the device; T is 1 at least.

    values: the tokens of all sequences one after another. lengths: int64 [n].
    """
    sizes = torch.from_numpy(lengths)
    mask = torch.arange(max(1, int(sizes.max())))[None, :] < sizes[:, None]
    ids = torch.full(mask.shape, padding, dtype=torch.int64)
    ids[mask] = torch.from_numpy(values.astype(np.int64))
    if device.type == "cuda":
        ids, mask = ids.pin_memory().to(device, non_blocking=True), mask.pin_memory().to(device, non_blocking=True)
    return ids, mask


def attention_mask(mask: Tensor, bidirectional: bool, dtype: torch.dtype) -> Tensor:
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
