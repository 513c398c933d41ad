"""Which texts are encoded together: runs of texts of similar length, with a bounded number of tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["ON_CPU", "cut", "default_budget"]

ON_CPU = 2048
"""Tokens of a micro-batch on a CPU, by default."""
LEAST, MOST = 1024, 65_536
"""Bounds of the tokens of a micro-batch on a GPU, by default."""
SHARE = 8
"""On a GPU, one part in this number of its memory is for the activations of a micro-batch, by default."""


def default_budget(device: torch.device, bytes_per_token: Callable[[], float]) -> int:
    """Number of tokens that are encoded together on a device, a power of two on a GPU.

    bytes_per_token: memory of the activations that the backward pass needs, for each token.
    """
    if device.type != "cuda":
        return ON_CPU
    room = torch.cuda.get_device_properties(device).total_memory / SHARE / max(bytes_per_token(), 1.0)
    return min(MOST, max(LEAST, 1 << max(0, int(room).bit_length() - 1)))


def cut(lengths: npt.NDArray[np.int64], budget: int, padded: bool) -> list[npt.NDArray[np.int64]]:
    """Rows of the sequences of each micro-batch, in order of length, every row in one of them.

    lengths: int64 [n]. budget: tokens of a micro-batch at most, but for a longer sequence, which is alone. padded: a
    micro-batch takes as many tokens for each of its sequences as for the longest.
    """
    order = np.argsort(lengths, kind="stable")
    # An empty sequence counts as one token: padded, it is one; and no micro-batch has endless many of them.
    ascending = np.maximum(lengths[order], 1)
    ends = np.cumsum(ascending)
    batches, start = [], 0
    while start < len(order):
        if padded:
            taken = ascending[start:] * np.arange(1, len(order) - start + 1)
        else:
            taken = ends[start:] - (ends[start] - ascending[start])
        stop = start + max(1, int(np.searchsorted(taken, budget, side="right")))
        batches.append(order[start:stop])
        start = stop
    return batches
