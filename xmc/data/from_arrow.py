"""Tables of other libraries as the tables of a data set, by the rules of files of records."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from xmc.data.arrow_objects import table_of
from xmc.data.named.in_memory import TablesSource
from xmc.data.row_tables import RowTables, require_policy
from xmc.data.sources import TabularColumns
from xmc.data.tables import GROUPED_SCHEMA, LABEL_SCHEMA, QUERY_SCHEMA
from xmc.errors import InputError

__all__ = ["tables_from_arrow"]

logger = logging.getLogger("xmc.data")


def tables_from_arrow(
    given: Any, label_table: Any, columns: TabularColumns, on_bad_row: str
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The tables of a data set by file stem, and what its properties say of where they are from; see Dataset.from_arrow.

    What is left out is counted in the properties, under "left_out", and logged, as are warnings.
    """
    require_policy(on_bad_row)
    splits = given if isinstance(given, Mapping) else {"train": given}
    if not splits:
        raise InputError("There are no splits; give a table, or a mapping from names of splits to tables.")
    tables = {str(split): table_of(table, f"The split {split!r} must be a table") for split, table in splits.items()}
    labels = None if label_table is None else table_of(label_table, "label_table must be a table")
    rows = _InMemory(TablesSource(tables, labels, columns, "arrow"), on_bad_row)
    label_batches = list(rows.batches(LABEL_SCHEMA, None, None))
    usable = np.concatenate([np.zeros(0, bool), *(usable for _, usable in label_batches)])
    label_rows = np.where(usable, np.cumsum(usable) - 1, -1)
    made = {"labels": pa.Table.from_batches([batch for batch, _ in label_batches], LABEL_SCHEMA)}
    schema = GROUPED_SCHEMA if rows.source.has_groups else QUERY_SCHEMA
    for split in tables:
        batches = [batch for batch, _ in rows.batches(schema, split, label_rows)]
        made[f"queries-{split}"] = pa.Table.from_batches(batches, schema)
    for remark in rows.remarks:
        logger.warning("%s", remark)
    for counts, what in ((rows.dropped, "left out"), (rows.warnings, "noticed")):
        if counts:
            logger.warning("%s: %s", what, _sentence(counts))
    left_out = {"left_out": dict(sorted(rows.dropped.items()))} if rows.dropped else {}
    return made, {**rows.source.properties(), **left_out}


class _InMemory(RowTables):
    remedy = "leave bad rows out with on_bad_row='drop'."


def _sentence(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} x {reason}" for reason, count in sorted(counts.items()))
