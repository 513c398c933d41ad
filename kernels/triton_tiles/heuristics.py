"""Tile shapes, and what of a machine decides on them, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

__all__ = ["Machine", "TileShape", "dot_precision", "interpreting", "machine_of", "storing_shape", "tile_shape"]

BARRIERS = 2048
"""Bytes of a block's shared memory that are kept for what the compiler adds to tiles."""
INTERPRETED_PROGRAMS = 3
"""Programs of a persistent grid in the interpreter: few, so that each of them has several tiles in small tests."""


@dataclass(frozen=True)
class TileShape:
    """A program computes tiles of `rows` x `labels` scores in steps of `depth` embedding dimensions; powers of two."""

    rows: int
    labels: int
    depth: int
    warps: int
    stages: int
    group: int = 8
    """Row blocks that are done before the next label tile, so that its embeddings are still in the cache."""


@dataclass(frozen=True)
class Machine:
    """What kernels run on. capability: of the GPU, 90 for 9.0; 0 for the interpreter. programs: of a persistent grid."""

    capability: int
    programs: int

    @property
    def large(self) -> bool:
        """Whether a block has the shared memory of data centre GPUs from Hopper on, 227 KiB, not 99 KiB."""
        return 90 <= self.capability < 120

    @property
    def shared_memory(self) -> int:
        """Largest shared memory of a block, in bytes (CUDA C++ Programming Guide, table of compute capabilities)."""
        return (227 if self.large else 99) * 1024

    @property
    def bulk_copies(self) -> bool:
        """Whether tiles are loaded through descriptors that the host makes; else through pointers that the kernel makes."""
        return self.capability == 0 or self.capability >= 90


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def machine_of(device: torch.device) -> Machine:
    """The machine behind a device; one program for each multiprocessor."""
    return Machine(0, INTERPRETED_PROGRAMS) if interpreting() else _gpu(device)


@lru_cache
def _gpu(device: torch.device) -> Machine:
    properties = torch.cuda.get_device_properties(device)
    return Machine(10 * properties.major + properties.minor, properties.multi_processor_count)


def tile_shape(dtype: torch.dtype, machine: Machine) -> TileShape:
    """The shape for inputs of this dtype.

    Compiled by Triton 3.9, no kernel spills a register with it (tests/kernels/test_triton_compilation.py). On an H100,
    128 x 256 x 64 in 16 bits was the fastest shape of a prototype; those of other dtypes and GPUs have not been timed.
    """
    if machine.capability == 0:  # small, so that small tests have many tiles, and edges
        return TileShape(rows=16, labels=64, depth=32, warps=1, stages=1, group=2)
    if dtype == torch.float32 and dot_precision() == "tf32" and machine.large:
        return TileShape(rows=128, labels=128, depth=32, warps=8, stages=3)
    if dtype == torch.float32:
        described = machine.bulk_copies
        return TileShape(rows=64, labels=128, depth=16, warps=8 if described else 4, stages=2 if described else 3)
    if machine.large:
        return TileShape(rows=128, labels=256, depth=64 if dtype.itemsize > 1 else 128, warps=8, stages=3)
    return TileShape(rows=128, labels=128, depth=64, warps=8, stages=2 if machine.bulk_copies else 3)


def storing_shape(shape: TileShape, inputs: torch.dtype, stored: torch.dtype, machine: Machine) -> TileShape:
    """The shape of a kernel that stores its whole tile: as many stages of inputs as fit beside it.

    A bulk copy stores from shared memory. Where inputs are narrow and what is stored is wide, float8 and float32, the tile
    takes more of it than that of a product of the stored dtype.
    """
    if not machine.bulk_copies or machine.capability == 0:
        return shape
    stage = (shape.rows + shape.labels) * shape.depth * inputs.itemsize
    left = machine.shared_memory - BARRIERS - shape.rows * shape.labels * stored.itemsize
    return replace(shape, stages=max(1, min(shape.stages, left // stage)))


def dot_precision() -> str:
    """How float32 is multiplied: exactly, or in TF32 where `torch.set_float32_matmul_precision` allows that."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
