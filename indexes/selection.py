"""Which labels a search may return: include and exclude, for all queries of a call or for each."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.errors import InputError
from xmc.indexes.blocks import Mask, Rows
from xmc.indexes.identifiers import Ids, RowLookup

__all__ = ["Labels", "PerQuery", "Selection", "select"]

Labels = Sequence[int | str] | Set[int | str] | Ids | npt.NDArray[np.bool_]
"""Some labels: ids (a list, set or array), or a mask over all labels, bool [L], in the order of the index's `ids`."""
PerQuery = Sequence[Labels]
"""As many of those as there are queries."""


@dataclass(frozen=True)
class Selection:
    """Rows that a search may return.

    mask: bool [rows], for all queries; None where every row may be returned.
    count: how many it lets pass.
    include, exclude: for each query its sorted rows, or None without such a list.
    """

    mask: Mask | None
    count: int
    include: list[Rows] | None = None
    exclude: list[Rows] | None = None


def select(
    include: Labels | PerQuery | None,
    exclude: Labels | PerQuery | None,
    queries: int,
    rows: int,
    alive: Mask | None,
    lookup: RowLookup,
) -> Selection:
    """What `include` and `exclude` leave of the living rows. Ids that are not there are ignored.

    Raises InputError for a mask that does not fit, or a list that is neither ids nor one entry a query.
    """
    living = rows if alive is None else int(alive.sum())

    def found(labels: Labels, name: str) -> Rows:
        if isinstance(labels, np.ndarray) and labels.dtype == bool:
            if labels.shape != (living,):
                raise InputError(f"{name} is a mask of shape {labels.shape}, but there are {living} labels.")
            return np.flatnonzero(labels) if alive is None else np.flatnonzero(alive)[labels]
        given: Any = labels
        at = np.unique(lookup.find(given))
        at = at[(at >= 0) & (at < rows)]
        return at if alive is None else at[alive[at]]

    mask, each = alive, {}
    for name, labels in (("include", include), ("exclude", exclude)):
        if labels is None:
            continue
        if _per_query(labels, queries, name):
            each[name] = [found(part, name) for part in labels]  # type: ignore[arg-type]
            continue
        chosen = np.zeros(rows, bool)
        chosen[found(labels, name)] = True  # type: ignore[arg-type]
        if name == "exclude":
            chosen = ~chosen
        mask = chosen if mask is None else mask & chosen
    count = rows if mask is None else int(mask.sum())
    return Selection(mask, count, each.get("include"), each.get("exclude"))


def _per_query(labels: Labels | PerQuery, queries: int, name: str) -> bool:
    """Whether there is a list for each query, rather than one for all."""
    if isinstance(labels, str):
        raise InputError(f"{name} must be a list of ids; put a single id into a list.")
    if isinstance(labels, (Set, np.ndarray)):
        return False
    if not isinstance(labels, Sequence):
        raise InputError(
            f"{name} must be a list, set or array of ids, or a mask, but is of type {type(labels).__name__}."
        )
    lists = sum(isinstance(part, (Sequence, Set, np.ndarray)) and not isinstance(part, str) for part in labels)
    if not lists:
        return False
    if lists != len(labels):
        raise InputError(f"{name} must be ids, or a list of ids for each query, but holds both.")
    if len(labels) != queries:
        raise InputError(f"{name} has {len(labels)} lists of ids for {queries} queries.")
    return True
