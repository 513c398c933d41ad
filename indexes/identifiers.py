"""Ids of labels: the user's int64 or strings, and the rows they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from xmc.errors import InputError
from xmc.indexes.blocks import Rows

__all__ = ["Ids", "RowLookup", "as_ids", "type_name"]

Ids = npt.NDArray[np.int64] | npt.NDArray[np.object_]

FOLD = 64
"""The recent rows of a lookup join the others when they are more than one in so many, and more than 4,096."""


class RowLookup:
    """The latest row of each id, as of one moment; `with_rows` makes the lookup of a later one and leaves this as it is.

    A removed label keeps its row here: whether a row is alive is for the caller to know.
    """

    def __init__(self, ids: Ids, recent: dict[int | str, int] | None = None) -> None:
        """ids: of the rows from 0 on, in their order; recent: of rows after them."""
        self._ids, self._recent = ids, {} if recent is None else recent
        self._rows: dict[int | str, int] | None = None  # of `_ids`, made when first asked for

    def with_rows(self, ids: Ids, all_ids: Ids) -> RowLookup:
        """The lookup after `ids` were appended: they are the last of `all_ids`."""
        first = len(all_ids) - len(ids)
        recent = {**self._recent, **{label: first + place for place, label in enumerate(ids.tolist())}}
        if len(recent) <= max(4096, len(self._ids) // FOLD):
            later = RowLookup(self._ids, recent)
            later._rows = self._rows
            return later
        later = RowLookup(all_ids)
        if self._rows is not None:
            later._rows = {**self._rows, **recent}
        return later

    def find(self, ids: Iterable[int | str] | Ids) -> Rows:
        """The row of each id, -1 for one that never was."""
        if self._rows is None:
            self._rows = {label: row for row, label in enumerate(self._ids.tolist())}
        rows, recent = self._rows, self._recent
        values = ids.tolist() if isinstance(ids, np.ndarray) else ids
        try:
            return np.array([recent.get(label, rows.get(label, -1)) for label in values], np.int64)
        except TypeError as error:  # what cannot be a key
            raise InputError(f"Label ids must be int64 or strings: {error}.") from error


def as_ids(ids: Sequence[int | str] | Ids) -> Ids:
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


def type_name(ids: Ids) -> str:
    """ "string" or "int64"."""
    return "string" if ids.dtype == object else "int64"
