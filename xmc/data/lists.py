"""Tables of a data set from Python's lists, which are checked before they are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.arrays import Mask
from xmc.data.sequences import in_order, is_utf8
from xmc.data.tables import FILTER_SCHEMA, LABEL_SCHEMA, QUERY_SCHEMA, filter_table
from xmc.errors import InputError

__all__ = ["Lists", "filter_of_pairs", "label_table", "labelled_column", "query_table", "require_splits"]

Lists = Sequence[Sequence[int]]


def label_table(texts: Sequence[str], uids: Sequence[str] | None) -> pa.Table:
    """The table of labels of these texts; uids are row numbers unless given.

    Raises InputError for what is not a list of strings, another number of uids, and a uid given twice.
    """
    listed = _texts(texts, "label_texts")
    return pa.table({"uid": _uids(uids, len(listed), "label_uids"), "text": listed}, schema=LABEL_SCHEMA)


def query_table(
    split: str,
    texts: Sequence[str],
    labels: Lists,
    rejected: Lists | None,
    uids: Sequence[str] | None,
    labelled: Sequence[bool] | Mask | None = None,
) -> pa.Table:
    """The table of a split's queries, with sorted lists of label rows, each row once; uids are row numbers unless
    given.

    Raises InputError for lengths that do not match, what is not a list of strings, and labels that are not lists of rows.
    """
    listed = _texts(texts, f"The texts of the split {split!r}")
    for lists, what in ((labels, "labels"), (rejected, "rejected labels")):
        if lists is not None and len(
            in_order(lists, f"The {what} of the split {split!r} must be a list of lists")
        ) != len(listed):
            raise InputError(f"The split {split!r} has {len(listed)} texts and {len(lists)} lists of {what}.")
    columns = {
        "uid": _uids(uids, len(listed), f"query_uids of the split {split!r}"),
        "text": listed,
        "labels": _rows(labels, f"The labels of the split {split!r}"),
        "relevance": [None] * len(listed),
        "rejected": [
            rows or None
            for rows in _rows(rejected or [[]] * len(listed), f"The rejected labels of the split {split!r}")
        ],
        "labelled": labelled_column(split, labelled, len(listed)),
    }
    try:
        return pa.table(columns, schema=QUERY_SCHEMA)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"The split {split!r} has a label row that does not fit 32 bits: {error}") from error


def labelled_column(split: str, labelled: Sequence[bool] | Mask | None, queries: int) -> pa.Array:
    """The column `labelled` of a split's queries, null for those that are labelled; of None, for all.

    Raises InputError for another number of values, and what is not True or False.
    """
    given = (
        [True] * queries if labelled is None else in_order(labelled, f"labelled of the split {split!r} must be a list")
    )
    if len(given) != queries:
        raise InputError(f"labelled of the split {split!r} has {len(given)} values for {queries} queries.")
    wrong = next((place for place, value in enumerate(given) if not isinstance(value, (bool, np.bool_))), None)
    if wrong is not None:
        raise InputError(
            f"labelled of the split {split!r} must be True or False, but at {wrong} is {given[wrong]!r:.100}."
        )
    return pa.array([None if value else False for value in given], pa.bool_())


def filter_of_pairs(split: str, pairs: npt.ArrayLike) -> pa.Table:
    """The table of filter pairs (query row, label row) [m, 2]; InputError for an array of another kind or shape."""
    array = np.asarray(pairs)
    if array.size == 0:
        return filter_table(np.zeros((0, 2), np.int64))
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise InputError(
            f"The filter of the split {split!r} must be pairs (query row, label row), whole numbers of the shape [m, 2], but "
            f"is {array.dtype} {list(array.shape)}."
        )
    if array.min() < 0 or array.max() > np.iinfo(FILTER_SCHEMA.field("query").type.to_pandas_dtype()).max:
        raise InputError(f"The filter of the split {split!r} has a row that is negative or does not fit 32 bits.")
    return filter_table(array)


def require_splits(splits: Any, **by_split: Mapping[str, Any] | None) -> None:
    """InputError where `splits` is not a mapping to pairs (texts, labels), and where other arguments name another split."""
    if not isinstance(splits, Mapping):
        raise InputError(
            f'splits must be a mapping such as {{"train": (texts, labels)}}, but is a {type(splits).__name__}.'
        )
    for split, pair in splits.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"The split {split!r} must be a pair (texts, labels), but is {pair!r:.100}.")
    for argument, given in by_split.items():
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f"{argument} must be a mapping by split, but is a {type(given).__name__}.")
        unknown = [split for split in given or () if split not in splits]
        if unknown:
            raise InputError(
                f"{argument} names the split {unknown[0]!r}, which is not in splits ({', '.join(splits)})."
            )


def _texts(texts: Any, name: str) -> list[str | None]:
    listed = in_order(texts, f"{name} must be a list of texts")
    for place, text in enumerate(listed):
        if text is not None and not isinstance(text, str):
            raise InputError(f"{name} must be texts, but at {place} is {text!r:.100}, of type {type(text).__name__}.")
        if text is not None and not is_utf8(text):
            raise InputError(f"{name} must be UTF-8, but at {place} is {text!r:.100}. Correct it.")
    return listed


def _uids(uids: Any, count: int, name: str) -> list[str]:
    if uids is None:
        return [str(row) for row in range(count)]
    listed = [uid for uid in _texts(uids, name) if uid is not None]
    if len(listed) != count:
        raise InputError(f"{name} has {len(listed)} uids for {count} texts.")
    if len(set(listed)) < count:
        seen: set[str] = set()
        twice = next(uid for uid in listed if uid in seen or seen.add(uid))  # type: ignore[func-returns-value]
        raise InputError(f"{name} has {twice!r} more than once; give each its own.")
    return listed


def _rows(lists: Any, name: str) -> list[list[int]]:
    """Each list of rows sorted, each row once."""
    checked = []
    for place, rows in enumerate(in_order(lists, f"{name} must be lists of rows")):
        listed = sorted(set(rows)) if _is_rows(rows) else _refuse_rows(rows, name, place)
        checked.append([int(row) for row in listed])
    return checked


def _is_rows(rows: Any) -> bool:
    if isinstance(rows, np.ndarray):
        return rows.ndim == 1 and (rows.dtype.kind in "iu" or not rows.size)
    try:
        return not isinstance(rows, (str, bytes, Mapping)) and all(
            isinstance(row, Integral) and not isinstance(row, bool) for row in rows
        )
    except TypeError:
        return False


def _refuse_rows(rows: Any, name: str, place: int) -> list[int]:
    raise InputError(
        f"{name} must be lists of row numbers in label_texts, such as [0, 2], but at {place} is {rows!r:.100}. Where labels "
        f"are strings, number them: {{label: row for row, label in enumerate(label_texts)}}."
    )
