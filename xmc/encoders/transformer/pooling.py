"""From the hidden states of the tokens of each sequence to one vector."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.encoders.transfer import on_device

__all__ = ["POOLINGS", "pool"]

POOLINGS = ("mean", "cls", "last", "eos")


def pool(
    states: Tensor, lengths: npt.NDArray[np.int64], kind: str, images: npt.NDArray[np.bool_] | None = None
) -> Tensor:
    """Vectors [n, W] of n sequences; zero for one without tokens.

    states: [T, W] of the sequences' tokens, one sequence after another. lengths: int64 [n].
    kind: "mean" over all tokens; "cls", the first that is no image; "last" and "eos", the last.
    images: bool [T], which tokens are images; None for none of them.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if kind == "mean":
        sums = torch.segment_reduce(states, "sum", offsets=on_device(offsets, states.device), unsafe=True, initial=0.0)
        return sums / on_device(np.maximum(lengths, 1), states.device)[:, None]
    rows = _first(offsets, lengths, images) if kind == "cls" else offsets[1:] - 1
    filled = lengths > 0
    if not len(states):
        return states.new_zeros(len(lengths), states.shape[1]) + states.sum()  # zero, with the states' graph behind it
    pooled = states[on_device(np.where(filled, rows, 0), states.device)]
    return pooled if filled.all() else pooled * on_device(filled, states.device)[:, None]


def _first(
    offsets: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], images: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.int64]:
    """The row of each sequence's first token that is no image, or of its first one where all are."""
    if images is None or not images.any():
        return offsets[:-1]
    # The next token that is no image, from each on; len(images) where there is none.
    count = len(images)
    coming = np.minimum.accumulate(np.where(images, count, np.arange(count))[::-1])[::-1]
    first = np.append(coming, count)[offsets[:-1]]
    return np.where(first < offsets[:-1] + lengths, first, offsets[:-1])
