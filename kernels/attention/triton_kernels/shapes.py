"""Sizes of blocks, in one place."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from xmc.kernels.triton_tiles.heuristics import interpreting

__all__ = ["BlockShape", "block_shape"]


@dataclass(frozen=True)
class BlockShape:
    """A program keeps `kept` tokens, and goes over those that they reach in blocks of `passing`; powers of two."""

    kept: int
    passing: int
    warps: int
    stages: int


SHAPES: dict[tuple[str, int], dict[int, tuple[int, int, int]]] = {
    ("forward", 2): {64: (64, 64, 4), 128: (64, 64, 8), 256: (64, 32, 8)},
    ("query gradients", 2): {64: (64, 64, 4), 128: (64, 32, 8), 256: (64, 16, 8)},
    ("key gradients", 2): {32: (64, 64, 4), 64: (64, 32, 4), 128: (64, 32, 8), 256: (16, 16, 8)},
    ("forward", 4): {32: (32, 32, 4), 256: (32, 16, 8)},
    ("query gradients", 4): {32: (32, 32, 4), 64: (32, 16, 4), 128: (32, 16, 8), 256: (16, 16, 8)},
    ("key gradients", 4): {32: (32, 32, 4), 64: (32, 16, 4), 128: (16, 16, 8), 256: (32, 16, 8)},
}
"""Kept and passing tokens and warps, by kernel and bytes of a number, for head sizes up to the key. Exact products of float32
take registers instead of matrix instructions."""


def block_shape(kernel: str, dtype: torch.dtype, size: int, *, dropped: bool) -> BlockShape:
    """The shape of a kernel for inputs of a dtype and a padded head size, a power of two from 16 to 256.

    Compiled by Triton 3.9, no kernel spills a register with it (tests/kernels/test_attention_compilation.py); none has been
    timed. Random numbers take registers too.
    """
    if interpreting():  # small, so that small tests have several blocks, and edges
        return BlockShape(kept=16, passing=16, warps=1, stages=1)
    by_size = SHAPES[kernel, dtype.itemsize]
    kept, passing, warps = by_size[min(largest for largest in by_size if largest >= size)]
    if dropped:
        passing = max(16, passing // 2)
    return BlockShape(kept, passing, warps, stages=2)
