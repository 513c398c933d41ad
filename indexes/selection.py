"""Which labels a search may return: include and exclude, for all queries of a call or for each, as rows of an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xmc.arrays import Mask, Rows
from xmc.errors import InputError

__all__ = ["Chosen", "ChosenPerQuery", "KeyedRows", "Selection", "per_query", "select"]

Chosen: TypeAlias = Sequence[int | str] | Set[int | str] | npt.NDArray[Any]
"""Some labels: ids or uids (a list, set or array), or a mask over all labels, bool [L], in their order."""
ChosenPerQuery: TypeAlias = Sequence[Chosen]
"""Some labels for each query."""


@dataclass(frozen=True)
class KeyedRows:
    """How the keys of labels are found among the rows of an index.

    find: the living row of each key, -1 for one that is not there; InputError for keys of another type.
    rows: the number of all rows. living: those that are not removed, ascending.
    key: what a key is called in messages, "id" or "uid".
    """

    find: Callable[[Any], Rows]
    rows: int
    living: Rows
    key: str


@dataclass(frozen=True)
class Selection:
    """What a search may return, as IndexVersion.search takes it.

    allowed: bool [rows], for all queries; None where every row may be returned. include, exclude: the rows of each query.
    """

    allowed: Mask | None = None
    include: list[Rows] | None = None
    exclude: list[Rows] | None = None


def select(
    labels: KeyedRows,
    queries: int,
    include: Chosen | ChosenPerQuery | None,
    exclude: Chosen | ChosenPerQuery | None,
    allowed: Mask | None = None,
) -> Selection:
    """What `include` and `exclude` leave of the rows that are `allowed`, bool [rows]. Keys that are not there are ignored.

    Raises InputError for a mask that does not fit, or a list that is neither keys nor one entry for each query.
    """
    each: dict[str, list[Rows]] = {}
    for name, given in (("include", include), ("exclude", exclude)):
        if given is None:
            continue
        entries = per_query(given, queries, name, labels.key)
        if entries is not None:
            each[name] = [_rows(labels, entry, name) for entry in entries]
            continue
        chosen = np.zeros(labels.rows, bool)
        chosen[_rows(labels, given, name)] = True
        if name == "exclude":
            chosen = ~chosen
        allowed = chosen if allowed is None else allowed & chosen
    return Selection(allowed, each.get("include"), each.get("exclude"))


def _rows(labels: KeyedRows, given: Any, name: str) -> Rows:
    if isinstance(given, np.ndarray) and given.dtype == bool:
        if given.shape != labels.living.shape:
            raise InputError(f"{name} is a mask of shape {given.shape}, but there are {len(labels.living)} labels.")
        return labels.living[given]
    keys = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if any(isinstance(key, (bool, np.bool_)) for key in keys):
        raise InputError(
            f"{name} holds values of bool, which are no {labels.key}s; give a mask as a numpy array of bool."
        )
    rows = np.unique(labels.find(keys))
    return rows[rows >= 0]


def per_query(given: Any, queries: int, name: str, key: str) -> list[Any] | None:
    """The entries of a list that has one for each query; None where it is for all of them."""
    if isinstance(given, (str, bytes)):
        raise InputError(f"{name} must be a list of {key}s; put a single {key} into a list.")
    if isinstance(given, Set) or (isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype != object):
        return None
    if not isinstance(given, (Sequence, np.ndarray)):
        raise InputError(
            f"{name} must be a list, set or array of {key}s, or a mask, but is of type {type(given).__name__}."
        )
    entries = list(given)
    lists = sum(isinstance(entry, (Sequence, Set, np.ndarray)) and not isinstance(entry, str) for entry in entries)
    if not lists:
        return None
    if lists != len(entries):
        raise InputError(f"{name} must be {key}s, or a list of {key}s for each query, but holds both.")
    if len(entries) != queries:
        raise InputError(f"{name} has {len(entries)} lists of {key}s for {queries} queries.")
    return entries
