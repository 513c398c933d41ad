"""The first of many numbers of each row, by block maxima once more: torch.topk sees few of them."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmc.kernels.triton_tiles.keys import key_of, number_of, ordered

__all__ = ["first_groups", "selection_block", "selection_bytes"]

VALUES = 1024
"""Numbers that a program of the kernels here reads at once."""


@triton.jit
def _block_keys(values, keys, width, blocks, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    """Of each block of a row, the key of its largest value and its number."""
    programs = tl.cdiv(blocks, BLOCKS)
    row = (tl.program_id(0) // programs).to(tl.int64)
    numbers = tl.program_id(0) % programs * BLOCKS + tl.arange(0, BLOCKS)
    at = numbers[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    block = tl.load(values + row * width + at, mask=at < width, other=float("-inf"))
    largest = tl.max(ordered(block), 1)
    tl.store(keys + row * blocks + numbers, key_of(largest, numbers.to(tl.int64)), mask=numbers < blocks)


@triton.jit
def _member_keys(values, chosen, keys, width, kept, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    """Of all values in the chosen blocks of a row, the keys with their place in the row."""
    programs = tl.cdiv(kept, BLOCKS)
    row = (tl.program_id(0) // programs).to(tl.int64)
    slots = tl.program_id(0) % programs * BLOCKS + tl.arange(0, BLOCKS)
    number = number_of(tl.load(chosen + row * kept + slots, mask=slots < kept, other=0))
    at = number[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (slots < kept)[:, None]
    block = tl.load(values + row * width + at, mask=inside & (at < width), other=float("-inf"))
    out = keys + row * kept * BLOCK + slots[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(out, key_of(ordered(block), at), mask=inside)


def first_groups(values: Tensor, kept: int) -> Tensor:
    """Keys of the `kept` first of each row of float32 [B, N], largest first, equal ones by the lower place; NaN is largest.

    int64 [B, kept] in any order; a key's number is the place. Blocks of values in a row are looked at by their maxima: each
    of the first values is in one of the first blocks by (maximum, number), as many as there are values to be found, since
    the values of a lower block stand in lower places. Reads all values once; the rest is small.
    """
    count, width = values.shape
    block = selection_block(width, kept)
    blocks = -(-width // block)
    keys = torch.empty((count, blocks), dtype=torch.int64, device=values.device)
    at_once = max(1, VALUES // block)
    _block_keys[(count * -(-blocks // at_once),)](values, keys, width, blocks, BLOCK=block, BLOCKS=at_once)
    chosen = keys.topk(kept, dim=1, sorted=False).values
    if block == 1:
        return chosen
    members = torch.empty((count, kept * block), dtype=torch.int64, device=values.device)
    _member_keys[(count * -(-kept // at_once),)](values, chosen, members, width, kept, BLOCK=block, BLOCKS=at_once)
    return members.topk(kept, dim=1, sorted=False).values


def selection_block(width: int, kept: int) -> int:
    """Size of the blocks, a power of two near the size for which torch.topk sees the fewest keys; 1 where that is few."""
    block = 2 ** round(math.log2(max(1.0, width / kept)) / 2)
    return block if block > 2 and -(-width // block) >= kept else 1


def selection_bytes(width: int, kept: int) -> int:
    """What `first_groups` takes for each row."""
    block = selection_block(width, kept)
    return 8 * -(-width // block) + 16 * kept + (0 if block == 1 else 8 * kept * block + 16 * kept)
