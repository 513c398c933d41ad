"""Tensors from files, whose names, types and shapes are compared with what is expected before any of them is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xmc.errors import StoreError, boundary
from xmc.storage.tensors import DescribedTensor, described_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FLOATS", "Expected", "numpy_tensors", "require_tensors", "torch_tensors"]

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that a model may be computed in."""


@dataclass(frozen=True)
class Expected:
    """What a tensor must be like. shape: None where any size will do. dtypes: the types that will do, by their names in files.

    optional: whether it may be missing. finite: whether NaN and infinities are refused.
    """

    shape: tuple[int | None, ...]
    dtypes: tuple[str, ...] = ("F32",)
    optional: bool = False
    finite: bool = True


def require_tensors(file: Path, expected: Mapping[str, Expected]) -> dict[str, DescribedTensor]:
    """What a safetensors file says of its tensors. Numbers are not read.

    Raises StoreError, which names file and tensor, for one that is missing, that is not expected, and of another type or shape.
    """
    described = described_tensors(file)
    further = sorted(described.keys() - expected.keys())
    if further:
        raise StoreError(f"{file} holds the tensor {further[0]!r}, which does not belong there.")
    for name, wanted in expected.items():
        if name not in described:
            if wanted.optional:
                continue
            raise StoreError(f"{file} lacks the tensor {name!r}.")
        tensor = described[name]
        fits = len(tensor.shape) == len(wanted.shape) and all(
            size in (None, actual) for size, actual in zip(wanted.shape, tensor.shape, strict=True)
        )
        if tensor.dtype not in wanted.dtypes or not fits:
            shape = ", ".join("any" if size is None else str(size) for size in wanted.shape)
            raise StoreError(
                f"{file} holds the tensor {name!r} as {tensor.dtype} {list(tensor.shape)}, where {' or '.join(wanted.dtypes)} "
                f"[{shape}] is expected."
            )
    return described


def numpy_tensors(file: Path, expected: Mapping[str, Expected]) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a file as arrays; StoreError as `require_tensors`, and for numbers that are not finite where they must."""
    from safetensors.numpy import load_file

    require_tensors(file, expected)
    with boundary(StoreError, f"{file} cannot be read"):
        arrays: dict[str, npt.NDArray[Any]] = load_file(file)
        for name, values in arrays.items():
            if expected[name].finite and values.dtype.kind == "f" and not np.isfinite(values).all():
                raise StoreError(f"{file} holds NaN or infinities in the tensor {name!r}.")
    return arrays


def torch_tensors(file: Path, expected: Mapping[str, Expected]) -> dict[str, Tensor]:
    """The tensors of a file for torch; StoreError as `numpy_tensors`."""
    from safetensors.torch import load_file

    require_tensors(file, expected)
    with boundary(StoreError, f"{file} cannot be read"):
        tensors: dict[str, Tensor] = load_file(file)
        for name, tensor in tensors.items():
            if expected[name].finite and tensor.is_floating_point() and not _is_finite(tensor):
                raise StoreError(f"{file} holds NaN or infinities in the tensor {name!r}.")
    return tensors


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are; one pass without memory of its own, where their sum is finite."""
    return math.isfinite(float(tensor.sum())) or bool(tensor.isfinite().all())
