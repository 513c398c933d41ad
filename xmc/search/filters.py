"""Which labels a call to the retriever may return: lists of uids, masks and conditions, as rows of its index."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, TypeAlias

import numpy.typing as npt
from pyarrow import compute as pc

from xmc.arrays import Mask, Rows
from xmc.errors import InputError
from xmc.indexes.selection import KeyedRows, Selection, select
from xmc.search.labels import LabelVersion
from xmc.search.predicates import parse_predicate

__all__ = ["Condition", "Uids", "matching", "narrow"]

Uids: TypeAlias = Sequence[str] | Set[str] | npt.NDArray[Any] | Sequence[Sequence[str] | Set[str] | npt.NDArray[Any]]
"""Some labels: uids (a list, set or array), a mask bool [L] in the order of the labels, or one of these for each query."""
Condition: TypeAlias = str | pc.Expression
"""What holds for a label or not: a text for xmc.search.predicates, or an expression over the columns of the labels."""


def matching(labels: LabelVersion, where: Condition) -> Mask:
    """Where a condition holds, bool [L]. InputError for one that does not fit the labels, or is of another type."""
    holds = _holds(labels, where)
    return holds if labels.alive is None else holds[labels.alive]


def narrow(
    labels: LabelVersion, queries: int, include: Uids | None, exclude: Uids | None, where: Condition | None
) -> Selection:
    """What the filters of a call with this number of queries leave, by index row. Uids that are not there are ignored.

    Raises InputError for a mask of another length, uids that are not strings, a list that holds both uids and lists, another
    number of lists than of queries, and conditions that do not fit.
    """
    allowed = None if where is None else _holds(labels, where)
    if include is None and exclude is None:
        return Selection(allowed)

    def find(uids: list[Any]) -> Rows:
        for uid in uids:
            if not isinstance(uid, str):
                raise InputError(
                    f"Labels are named by uids, which are strings, but {uid!r} is of type {type(uid).__name__}."
                )
        return labels.index_rows(uids)

    return select(KeyedRows(find, len(labels.all_ids), labels.living, "uid"), queries, include, exclude, allowed)


def _holds(labels: LabelVersion, where: Condition) -> Mask:
    """Where a condition holds, bool by index row."""
    condition = parse_predicate(where) if isinstance(where, str) else where
    if not isinstance(condition, pc.Expression):
        kind = type(where).__name__
        raise InputError(f"where must be a text or an expression of pyarrow.compute, but is of type {kind}.")
    return labels.matching(condition)
