"""The two moments of Adam for each row of a matrix, in as many bytes as one likes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from xmc.registry import Registry

__all__ = ["Moments", "bytes_per_number"]


class Moments(ABC):
    """First and second moment of the rows of a parameter [R, D], read and written some rows at a time."""

    kind: ClassVar[str]
    bytes_per_number: ClassVar[float]
    """Bytes that the two moments of one number take, scales of rows apart."""
    tensors: dict[str, Tensor]
    """What is stored, by name; each has a first dimension of R."""

    @staticmethod
    def from_kind(kind: str, parameter: Tensor) -> Moments:
        """Zero moments for `parameter`, stored as `kind`: "float32", "bfloat16" or "int8"."""
        return MOMENTS[kind](parameter)

    @abstractmethod
    def __init__(self, parameter: Tensor) -> None: ...

    @abstractmethod
    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments of some rows, float32 [n, D], as copies."""

    @abstractmethod
    def write(self, rows: Tensor, first: Tensor, second: Tensor) -> None:
        """Store both moments of some rows."""


class Float32Moments(Moments):
    """As they are: 8 D bytes a row."""

    kind = "float32"
    bytes_per_number = 8.0
    dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, parameter: Tensor) -> None:
        self.tensors = {name: torch.zeros_like(parameter, dtype=self.dtype) for name in ("first", "second")}

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Widened to float32."""
        return self.tensors["first"][rows].float(), self.tensors["second"][rows].float()

    def write(self, rows: Tensor, first: Tensor, second: Tensor) -> None:
        """Rounded to what is stored."""
        self.tensors["first"][rows] = first.to(self.dtype)
        self.tensors["second"][rows] = second.to(self.dtype)


class BFloat16Moments(Float32Moments):
    """Rounded: 4 D bytes a row."""

    kind = "bfloat16"
    bytes_per_number = 4.0
    dtype = torch.bfloat16


class Int8Moments(Moments):
    """A byte a number and a scale a row: 2 D + 8 bytes a row.

    The first moment is linear in its byte. Of the second the square root is, rounded up: then a step is at most as long as
    it would be with exact moments, also where a number is small beside others of its row.
    """

    kind = "int8"
    bytes_per_number = 2.0

    def __init__(self, parameter: Tensor) -> None:
        scales = parameter.new_zeros(len(parameter), 1, dtype=torch.float32)
        self.tensors = {
            "first": torch.zeros_like(parameter, dtype=torch.int8),
            "second": torch.zeros_like(parameter, dtype=torch.uint8),
            "first_scale": scales,
            "second_scale": scales.clone(),
        }

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Bytes times scales."""
        first = self.tensors["first"][rows].float() * self.tensors["first_scale"][rows]
        return first, (self.tensors["second"][rows].float() * self.tensors["second_scale"][rows]).square()

    def write(self, rows: Tensor, first: Tensor, second: Tensor) -> None:
        """Scales such that the largest number of a row has the largest byte."""
        tiny = torch.finfo(torch.float32).tiny
        first_scale = first.abs().amax(1, keepdim=True) / 127
        root = second.sqrt()
        root_scale = root.amax(1, keepdim=True) / 255
        self.tensors["first"][rows] = (first / first_scale.clamp_min(tiny)).round().to(torch.int8)
        self.tensors["second"][rows] = (root / root_scale.clamp_min(tiny)).ceil().clamp_max(255).to(torch.uint8)
        self.tensors["first_scale"][rows] = first_scale
        self.tensors["second_scale"][rows] = root_scale


MOMENTS: Registry[type[Moments]] = Registry("storage of moments")
for member in (Float32Moments, BFloat16Moments, Int8Moments):
    MOMENTS.register(member.kind, member)


def bytes_per_number(kind: str) -> float:
    """Bytes that the two moments of one number take, stored as `kind`."""
    return MOMENTS[kind].bytes_per_number
