"""Tile shapes, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TileShape", "dot_precision", "interpreting", "operands", "tile_shape"]


@dataclass(frozen=True)
class TileShape:
    """A program computes `rows` x `labels` scores in steps of `depth` embedding dimensions; powers of two."""

    rows: int
    labels: int
    depth: int
    warps: int
    stages: int
    group: int = 8
    """Row blocks that are done before the next label tile, so that its embeddings are still in the cache."""


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def tile_shape(dtype: torch.dtype, *, heavy: bool = False) -> TileShape:
    """The shape for inputs of this dtype; `heavy` where much is done with a score, which takes registers."""
    if interpreting():  # small, so that small tests have many tiles, and edges
        return TileShape(rows=16, labels=64, depth=32, warps=1, stages=1, group=2)
    if dtype == torch.float32:
        return TileShape(rows=64, labels=128, depth=32, warps=4, stages=3)
    return TileShape(rows=128, labels=128 if heavy else 256, depth=64, warps=8, stages=3)


def dot_precision() -> str:
    """How float32 is multiplied: exactly, or in TF32 where `torch.set_float32_matmul_precision` allows that."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def operands(*tensors: Tensor) -> list[Tensor]:
    """The tensors as kernels can take them: the interpreter multiplies raw bits of bfloat16, so it gets float32."""
    if interpreting():
        return [tensor.float() if tensor.dtype == torch.bfloat16 else tensor for tensor in tensors]
    return list(tensors)
