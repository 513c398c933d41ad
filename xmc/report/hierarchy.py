"""Which labels are broader than others, where the data set says so: a column `broader` of its labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xmc.data.splits import DataLabels
from xmc.errors import DataError

__all__ = ["COLUMN", "Hierarchy"]

COLUMN = "broader"
"""Column of the labels: the uid of the next broader label, or a list of uids, null for none."""


class Hierarchy:
    """The next broader labels of each label, by rows."""

    def __init__(self, parents: dict[int, list[int]]) -> None:
        """parents: rows of the next broader labels by a label's row."""
        self._parents = parents
        self._above: dict[int, frozenset[int]] = {}

    @classmethod
    def from_labels(cls, labels: DataLabels) -> Hierarchy:
        """From the column `broader`; empty where there is none. Uids that are no label's are left out.

        Raises DataError for a column of another type.
        """
        if COLUMN not in labels.columns.column_names:
            return cls({})
        column = labels.columns[COLUMN].combine_chunks()
        column = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
        children = pa.array(np.arange(len(column)))
        try:
            if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
                children, column = pc.list_parent_indices(column), pc.list_flatten(column)
            rows = pc.index_in(column.cast(pa.string()), value_set=labels.uids)
        except pa.ArrowException as error:
            raise DataError(
                f"The column {COLUMN!r} of the labels is {column.type}, not a uid or a list of uids: {error}"
            ) from error
        parents: dict[int, list[int]] = {}
        for child, parent in zip(children.to_pylist(), rows.to_pylist(), strict=True):
            if parent is not None and parent != child:
                parents.setdefault(child, []).append(parent)
        return cls(parents)

    def above(self, label: int) -> frozenset[int]:
        """All broader labels, near and far."""
        if label not in self._above:
            found: set[int] = set()
            waiting = list(self._parents.get(label, ()))
            while waiting:
                parent = waiting.pop()
                if parent not in found and parent != label:
                    found.add(parent)
                    waiting += self._parents.get(parent, ())
            self._above[label] = frozenset(found)
        return self._above[label]
