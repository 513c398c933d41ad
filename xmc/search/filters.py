"""Which labels a call to the retriever may return: lists of uids, masks and conditions, as an index understands them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pyarrow import compute as pc

from xmc.errors import InputError
from xmc.search.labels import LabelTable
from xmc.search.predicates import parse_predicate

__all__ = ["Condition", "Mask", "Uids", "matching", "narrow"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Uids = Sequence[str] | Set[str] | npt.NDArray[Any] | Sequence[Sequence[str] | Set[str] | npt.NDArray[Any]]
"""Some labels: uids (a list, set or array), a mask bool [L] in the order of the labels, or one of these for each query."""
Condition: TypeAlias = str | pc.Expression
"""What holds for a label or not: a text for xmc.search.predicates, or an expression over the columns of the label table."""


def matching(labels: LabelTable, where: Condition) -> Mask:
    """Where a condition holds, bool [L]. InputError for one that does not fit the label table, or is of another type."""
    condition = parse_predicate(where) if isinstance(where, str) else where
    if not isinstance(condition, pc.Expression):
        kind = type(where).__name__
        raise InputError(f"where must be a text or an expression of pyarrow.compute, but is of type {kind}.")
    return labels.matching(condition)


def narrow(
    labels: LabelTable, include: Uids | None, exclude: Uids | None, where: Condition | None
) -> tuple[Mask | list[Rows] | None, list[Rows] | None]:
    """`include` and `exclude` for an index of these labels: all that holds for every query as one mask, the rest as ids.

    Uids that are not there are ignored. Raises InputError for a mask of another length, uids that are not strings, a list
    that holds both uids and lists, and conditions that do not fit.
    """
    allowed = None if where is None else matching(labels, where)
    each: dict[str, list[Rows]] = {}
    for name, given in (("include", include), ("exclude", exclude)):
        if given is None:
            continue
        parts = _per_query(given, name)
        if parts is not None:
            each[name] = [_rows(labels, part, name) for part in parts]
            continue
        chosen = np.zeros(len(labels), bool)
        chosen[_rows(labels, given, name)] = True
        if name == "exclude":
            chosen = ~chosen
        allowed = chosen if allowed is None else allowed & chosen
    excluded = [labels.ids[rows] for rows in each["exclude"]] if "exclude" in each else None
    if "include" not in each:
        return allowed, excluded
    kept = each["include"] if allowed is None else [rows[allowed[rows]] for rows in each["include"]]
    return [labels.ids[rows] for rows in kept], excluded


def _per_query(given: Any, name: str) -> list[Any] | None:
    """The parts of a list that has one for each query; None where it is for all queries."""
    if isinstance(given, (str, bytes)):
        raise InputError(f"{name} must be a list of uids; put a single uid into a list.")
    if isinstance(given, Set) or (isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype != object):
        return None
    parts = list(given)
    lists = sum(isinstance(part, (Sequence, Set, np.ndarray)) and not isinstance(part, str) for part in parts)
    if lists and lists != len(parts):
        raise InputError(f"{name} must be uids, or a list of uids for each query, but holds both.")
    return parts if lists else None


def _rows(labels: LabelTable, given: Any, name: str) -> Rows:
    if isinstance(given, np.ndarray) and given.dtype == bool:
        if given.shape != (len(labels),):
            raise InputError(f"{name} is a mask of shape {given.shape}, but there are {len(labels)} labels.")
        return np.flatnonzero(given)
    uids = given.tolist() if isinstance(given, np.ndarray) else list(given)
    other = next((uid for uid in uids if not isinstance(uid, str)), None)
    if other is not None:
        raise InputError(f"{name} must hold uids, which are strings, but {other!r} is of type {type(other).__name__}.")
    rows = labels.rows(uids)
    return rows[rows >= 0]
