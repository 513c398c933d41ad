"""Lists of whole numbers from arrays of Python objects, which numpy stores as pickles, without doing what a pickle asks for."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["NotNumbersError", "read_number_lists"]


class NotNumbersError(ValueError):
    """A pickle holds, or asks for, something that lists of whole numbers are not made of."""


def read_number_lists(stream: BinaryIO, shape: tuple[int, ...]) -> list[npt.NDArray[np.int64]]:
    """The numbers of each row of an object array, int64 [m] each, from its pickle, which `stream` is at the beginning of.

    shape: [rows], of a number, a list, a tuple or an array of numbers each, or None for no number; or [rows, m], of numbers.

    Nothing of numpy is called as the pickle wishes: its arrays, numbers and types become objects of this module. numpy's own
    would take types from the pickle by which bytes pass for addresses of objects.

    Raises NotNumbersError for anything else; the message names it.
    """
    try:
        unpickled = _Unpickler(stream).load()
    except NotNumbersError:
        raise
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        raise NotNumbersError(f"its pickle cannot be read ({type(error).__name__}: {error})") from error
    if (
        not isinstance(unpickled, _Array)
        or unpickled.items is None
        or unpickled.shape != shape
        or len(shape) not in (1, 2)
    ):
        raise NotNumbersError("its pickle is not the array of rows that its header describes")
    entries = unpickled.items
    if len(shape) == 2:  # stored row by row, whatever the order in memory was
        rows, columns = shape
        entries = [entries[row * columns : (row + 1) * columns] for row in range(rows)]
    return [_numbers(entry, row) for row, entry in enumerate(entries)]


class _Type:
    """In place of numpy.dtype: whole numbers, or objects."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[iu][1248]|O8?", code):
            raise NotNumbersError(f"it holds values of type {code!r}, which are not whole numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subarray, names, fields, *_ = state
        if order not in ("<", ">", "=", "|") or subarray or names or fields:
            raise NotNumbersError("it holds values that have parts, which are not whole numbers")
        self.order = order

    @property
    def objects(self) -> bool:
        return self.code[0] == "O"

    def read(self, data: bytes) -> npt.NDArray[np.int64]:
        numbers = np.frombuffer(data, self.order + self.code)
        if len(numbers) and int(numbers.max()) > np.iinfo(np.int64).max:
            raise NotNumbersError(f"it holds {int(numbers.max())}, which is no row")
        return numbers.astype(np.int64)


class _Array:
    """In place of numpy's arrays: `items` where they are objects, else `numbers`, in the order they are stored in."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()
        self.items: list[Any] | None = None
        self.numbers: npt.NDArray[np.int64] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, kind, _, data = state
        if kind.objects:
            self.items, count = list(data), len(data)
        else:
            self.numbers = kind.read(data)
            count = len(self.numbers)
        if math.prod(self.shape) != count:
            raise NotNumbersError(f"an array of shape {list(self.shape)} has {count} values")


class _Number:
    """In place of numpy's numbers."""

    def __init__(self, kind: _Type, data: bytes) -> None:
        (self.value,) = kind.read(data).tolist()


class _Bytes:
    """In place of the functions by which old pickles write bytes, as text, or none."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> Any:
        if encoding not in ("latin1", "latin-1"):
            raise NotNumbersError(f"it holds text in {encoding!r}")
        return text.encode("latin1")


_STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Number for core in ("core", "_core")},
    **dict.fromkeys([("_codecs", "encode"), ("__builtin__", "bytes"), ("builtins", "bytes")], _Bytes),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise NotNumbersError(f"it asks for {module}.{name}, which lists of numbers are not made of")
        return _STAND_INS[module, name]


def _numbers(entry: Any, row: int) -> npt.NDArray[np.int64]:
    if entry is None:
        return np.zeros(0, np.int64)
    if isinstance(entry, _Array) and entry.numbers is not None and len(entry.shape) <= 1:
        return entry.numbers
    items = entry.items if isinstance(entry, _Array) and len(entry.shape) <= 1 else entry
    try:
        return np.array([_number(item) for item in (items if isinstance(items, (list, tuple)) else [items])], np.int64)
    except (TypeError, OverflowError) as error:
        raise NotNumbersError(f"entry {row} is {_shown(entry)}, which is neither a whole number nor a list") from error


def _number(item: Any) -> int:
    if isinstance(item, _Number):
        return int(item.value)
    if type(item) is not int:
        raise TypeError(item)
    return item


def _shown(entry: Any) -> str:
    if isinstance(entry, _Array):
        return f"an array of shape {list(entry.shape)}"
    text = repr(entry)
    return text if len(text) <= 80 else f"{text[:80]}..."
