"""Ids of labels: the user's int64 or strings, and the rows they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.arrays import Mask, Rows
from xmc.cached import cached_property
from xmc.errors import InputError

__all__ = ["LabelIds", "RowLookup", "as_ids", "type_name"]

LabelIds = npt.NDArray[np.int64] | npt.NDArray[np.object_]
"""The ids of labels in an index that stands alone: int64 [n], or strings [n] (object)."""

FOLD = 64
"""The recent rows of a lookup join the others when their number is more than a FOLD-th of these, and more than 4,096."""


class _Base:
    """The rows of most keys; the dictionary is made when it is first asked for, and shared by later lookups."""

    def __init__(self, keys: Callable[[], Iterable[Any]]) -> None:
        self._keys = keys

    @classmethod
    def from_rows(cls, rows: dict[Any, int]) -> _Base:
        """Over a dictionary that is there."""
        base = cls(lambda: ())
        base.rows = rows
        return base

    @cached_property
    def rows(self) -> dict[Any, int]:
        """The last row of each key."""
        return {key: row for row, key in enumerate(self._keys())}


class RowLookup:
    """The latest row of each key, as of one moment; `with_rows` makes the lookup of a later one and leaves this as it is.

    A removed label keeps its row here: whether a row is alive is for the caller to know.
    """

    def __init__(self, keys: Callable[[], Iterable[Any]]) -> None:
        """keys: gives the key of each row from 0 on, in their order; called when a row is first looked for, or never."""
        self._base, self._recent = _Base(keys), dict[Any, int]()

    def with_rows(self, keys: Iterable[Any], first: int) -> RowLookup:
        """The lookup after rows from `first` on came with these keys."""
        later = RowLookup(lambda: ())
        later._base = self._base
        later._recent = {**self._recent, **{key: row for row, key in enumerate(keys, first)}}
        if len(later._recent) > max(4096, len(self._base.rows) // FOLD):
            later._base = _Base.from_rows({**self._base.rows, **later._recent})
            later._recent = {}
        return later

    def find(self, keys: Iterable[Any]) -> Rows:
        """The row of each key, int64 [n], -1 for one that never was. InputError for a key of a type that none can have."""
        rows, recent = self._base.rows, self._recent
        values = keys.tolist() if isinstance(keys, np.ndarray) else keys
        try:
            return np.array([recent.get(key, rows.get(key, -1)) for key in values], np.int64)
        except TypeError as error:
            raise InputError(f"Label ids must be int64 or strings: {error}.") from error

    def find_living(self, keys: Iterable[Any], rows: int, alive: Mask | None) -> Rows:
        """As `find`, and -1 for a row that came later than the first `rows`, or is not alive, bool [rows]; None: all are."""
        found = self.find(keys)
        found[found >= rows] = -1
        if alive is not None:
            found[(found >= 0) & ~alive[found]] = -1
        return found


def as_ids(ids: Sequence[int | str] | LabelIds) -> LabelIds:
    """An array int64 [n], or of strings [n] (object). InputError for mixed or other types."""
    if isinstance(ids, np.ndarray) and ids.dtype == np.int64 and ids.ndim == 1:
        return np.array(ids, np.int64)
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InputError(f"Label ids must be a list or an array, but are of type {type(ids).__name__}.")
    values = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if all(isinstance(value, str) for value in values) and values:
        array = np.empty(len(values), object)
        array[:] = values
        return array
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in values):
        try:
            return np.array(values, np.int64)
        except OverflowError as error:
            raise InputError("A label id does not fit into 64 bits; use strings.") from error
    kinds = sorted({type(value).__name__ for value in values})
    raise InputError(f"Label ids must be all int64 or all strings, but are of type {', '.join(kinds)}.")


def type_name(ids: LabelIds) -> str:
    """ "string" or "int64"."""
    return "string" if ids.dtype == object else "int64"
