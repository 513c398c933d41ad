"""Numbers in files, read by numpy alone: where each tensor of a safetensors file lies, a whole tensor, rows of a matrix."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.errors import StoreError, boundary

__all__ = ["DescribedTensor", "OpenTensor", "StoredTensor", "described_tensors", "stored_tensors"]

SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip
"""Bytes of a number by the name that its type has in such files."""
DTYPES: Mapping[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""Types of numbers by their names in such files; bfloat16, which numpy lacks, is not among them."""
LONGEST_HEADER = 1 << 24
"""Bytes of a file's description of its tensors at most: room for more than 100,000 of them."""


@dataclass(frozen=True)
class DescribedTensor:
    """A tensor as a file describes it: type by its name there, such as "F32", shape, and the place of its first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: type, shape, and the place of its first byte."""

    file: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    def read(self) -> npt.NDArray[Any]:
        """The whole tensor, in memory. StoreError where the file has changed since."""
        count = math.prod(self.shape)
        try:
            values = np.fromfile(self.file, self.dtype, count, offset=self.start)
        except OSError as error:
            raise StoreError(f"{self.file} cannot be read: {error}") from error
        if len(values) < count:
            raise StoreError(f"{self.file} ends before its tensors do; copy it again.")
        return values.reshape(self.shape)

    def open(self) -> OpenTensor:
        """The rows of the tensor, a matrix, to be read as they are needed. StoreError where the file is gone."""
        try:
            return OpenTensor(self, self.file.open("rb", buffering=0))
        except OSError as error:
            raise StoreError(f"{self.file} cannot be read: {error}") from error


class OpenTensor:
    """A matrix in an open file, whose rows are read as they are asked for, by any thread; none of it stays mapped."""

    def __init__(self, tensor: StoredTensor, file: FileIO) -> None:
        """Use `StoredTensor.open`."""
        self.tensor, self._file, self._turn = tensor, file, threading.Lock()
        self._row_bytes = tensor.shape[1] * tensor.dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.tensor.shape

    def __enter__(self) -> OpenTensor:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def rows(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
        """Some rows [n, D], in the order given. StoreError where the file ends before them."""
        values = np.empty((len(rows), self.tensor.shape[1]), self.tensor.dtype)
        views, size = _bytes_of(values), self._row_bytes
        for number, row in enumerate(rows.tolist()):
            self._fill(views[number * size : (number + 1) * size], row)
        return values

    def slices(self, height: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """The first row of each `height` rows, and these rows [n, D], which the next ones overwrite."""
        count, width = self.tensor.shape
        held = np.empty((min(height, count), width), self.tensor.dtype)
        for first in range(0, count, height):
            values = held[: min(height, count - first)]
            self._fill(_bytes_of(values), first)
            yield first, values

    def _fill(self, view: memoryview, row: int) -> None:
        """Read the bytes from the beginning of a row on."""
        place = self.tensor.start + row * self._row_bytes
        if not hasattr(os, "preadv"):  # Windows
            with self._turn:
                self._file.seek(place)
                count = self._file.readinto(view)
        else:
            count = os.preadv(self._file.fileno(), [view], place)
        if count != len(view):
            raise StoreError(f"{self.tensor.file} ends before its numbers do; copy it again.")


def _bytes_of(values: npt.NDArray[Any]) -> memoryview:
    return values.data.cast("B") if values.size else memoryview(bytearray())


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name; StoreError for another file, and for a type that numpy lacks."""
    described = described_tensors(file)
    with boundary(StoreError, f"{file} cannot be read as a safetensors file"):
        return {
            name: StoredTensor(file, np.dtype(DTYPES[tensor.dtype]), tensor.shape, tensor.start)
            for name, tensor in described.items()
        }


def described_tensors(file: Path) -> dict[str, DescribedTensor]:
    """What a safetensors file says of its tensors, by name; StoreError for another file, and places outside of it."""
    with boundary(StoreError, f"{file} cannot be read as a safetensors file"):
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if not 0 < length <= LONGEST_HEADER:
                raise ValueError(f"its description has {length} bytes")
            described = json.loads(opened.read(length))
        end = file.stat().st_size
        described.pop("__metadata__", None)
        return {str(name): _described(8 + length, end, entry) for name, entry in described.items()}


def _described(first: int, end: int, entry: Mapping[str, Any]) -> DescribedTensor:
    dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    if dtype not in SIZES:
        raise ValueError(f"it has numbers of the type {dtype:.20}")
    start, stop = (first + int(offset) for offset in entry["data_offsets"])
    if (
        min(shape, default=0) < 0
        or stop - start != math.prod(shape) * SIZES[dtype]
        or not first <= start <= stop <= end
    ):
        raise ValueError(f"the place of a tensor of shape {list(shape)} is from byte {start} to {stop} of {end}")
    return DescribedTensor(dtype, shape, start)
