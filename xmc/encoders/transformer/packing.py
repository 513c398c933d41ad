"""Sequences of one micro-batch as one run of tokens with the boundaries of its segments, so that nothing is padded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from xmc.encoders.transfer import on_device
from xmc.encoders.transformer.arrangement import Arranged

__all__ = ["SMALLEST", "pack", "rounded_up"]

SMALLEST = 16
"""The smallest number of tokens that a run is filled up to, where runs are filled up."""
PARTS = 8
"""Runs are filled up to the next eighth of a full micro-batch, or below the first of them to the next power of two."""


def pack(
    values: npt.NDArray[np.unsignedinteger],
    lengths: npt.NDArray[np.int64],
    first_position: int,
    device: torch.device,
    full: int | None = None,
) -> Arranged:
    """One row of the tokens of n sequences, one after another; positions start anew at each of them.

    values: token ids [T] of all sequences one after another. lengths: int64 [n]. first_position: of a sequence's first
    token. full: number of tokens of a full micro-batch, where runs are to have few different sizes: further sequences,
    no longer than the longest, then fill the run up. A run without any token has one, of a further sequence.
    """
    total, longest = len(values), int(lengths.max(initial=1))
    wanted = max(1, total) if full is None else rounded_up(total, full)
    lengths = np.concatenate([lengths, _filling(wanted - total, longest)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if full is not None:  # few different lengths and numbers of segments too: the last ones are empty
        longest = _next_power_of_two(longest)
        offsets = np.pad(offsets, (0, _next_power_of_two(len(lengths)) - len(lengths)), mode="edge")
    ids = np.zeros(wanted, np.int64)
    ids[:total] = values
    positions = np.arange(wanted) - np.repeat(offsets[: len(lengths)], lengths) + first_position
    boundaries = on_device(offsets.astype(np.int32), device)
    keywords = {
        "position_ids": on_device(positions[None], device),
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    return Arranged(on_device(ids[None], device), total, None, keywords)


def rounded_up(tokens: int, full: int) -> int:
    """The number of tokens that a run of `tokens` is filled up to, where a full micro-batch has `full`.

    >>> [rounded_up(tokens, 1024) for tokens in (0, 17, 120, 130, 1000, 1024, 1025)]
    [16, 32, 128, 256, 1024, 1024, 1152]
    """
    part = max(SMALLEST, full // PARTS)
    return max(SMALLEST, _next_power_of_two(tokens)) if tokens <= part // 2 else -(-tokens // part) * part


def _filling(tokens: int, longest: int) -> npt.NDArray[np.int64]:
    """Lengths, `longest` at most, of sequences that have `tokens` tokens together."""
    count = -(-tokens // longest)
    lengths = np.full(count, longest, np.int64)
    if count:
        lengths[-1] = tokens - (count - 1) * longest
    return lengths


def _next_power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
