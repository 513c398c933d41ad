"""Scores with the number of what they are scores of, as integers of one order: best score first, then the lowest number.

A key is one int64: the score's bits in the order of integers, then the number's complement. So the largest key is the best
score of the lowest number, no two keys of a row are equal, and what is best does not depend on who finds it first.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["key_of", "number_of", "ordered", "unpack"]

BLOCK = 1024
"""Keys that a program unpacks."""


@triton.jit
def ordered(score):
    """Bits of float32 scores, int32 in the scores' order: -0.0 equals 0.0, and NaN is the largest."""
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    return tl.where(score != score, 0x7FFFFFFF, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def key_of(order, number):
    """The key, int64, of a score's `ordered` bits and an int64 number below 2^32."""
    return (order.to(tl.int64) << 32) | (4294967295 - number)


@triton.jit
def number_of(key):
    """The number that is in a key, int64."""
    return 4294967295 - (key & 4294967295)


@triton.jit
def _unpack(keys, scores, numbers, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + at, mask=at < count, other=0)
    order = (key >> 32).to(tl.int32)
    score = (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    tl.store(scores + at, score, mask=at < count)
    tl.store(numbers + at, tl.where(score == float("-inf"), -1, number_of(key)), mask=at < count)


def unpack(keys: Tensor, scores: Tensor, numbers: Tensor) -> None:
    """Write the scores, float32, and numbers, int64, of keys; -1 is the number of a score of -inf. All contiguous."""
    count = keys.numel()
    _unpack[(triton.cdiv(count, BLOCK),)](keys, scores, numbers, count, BLOCK=BLOCK)
