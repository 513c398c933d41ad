"""New splits of a data set's tables and images in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xmc.arrays import Rows
from xmc.data.drawing import TRAIN, DrawnSplits, groups_of_values
from xmc.data.evidence import EVIDENCE, Evidence, LabelBags
from xmc.data.images.ragged import RaggedImages
from xmc.data.tables import FILTER_SCHEMA, filter_table
from xmc.data.targets import pairs_of_rows
from xmc.errors import InputError

__all__ = [
    "groups_of_rows",
    "judged_of",
    "pairs_of",
    "spread_images",
    "spread_tables",
    "warn_of_lost_bags",
]

logger = logging.getLogger("xmc.data")


def groups_of_rows(groups: Sequence[Any] | str | None, queries: pa.Table) -> Rows | None:
    """The number of each query's group, int64 [n], from a value for each query or the name of a column; None for None.

    Raises InputError for a column that is not there, another number of values, and values of several types.
    """
    if groups is None:
        return None
    if isinstance(groups, str):
        if groups not in queries.column_names:
            raise InputError(f"The queries have no column {groups!r}, only {', '.join(queries.column_names)}.")
        return groups_of_values(queries[groups])
    try:
        values = groups if isinstance(groups, (pa.Array, pa.ChunkedArray)) else pa.array(list(groups))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"groups must be a value for each training query, of one type: {error}") from error
    if len(values) != len(queries):
        raise InputError(f"groups has {len(values)} values for {len(queries)} training queries.")
    return groups_of_values(values)


def spread_tables(tables: Mapping[str, pa.Table], drawn: DrawnSplits) -> dict[str, pa.Table]:
    """The tables by file stem, those of train spread over the splits; the log says how the draw went."""
    for sentence in drawn.sentences():
        logger.info(sentence)
    spread = {stem: table for stem, table in tables.items() if not stem.endswith(f"-{TRAIN}")}
    pairs, judged = tables.get(f"filter-{TRAIN}"), tables.get(f"judged-{TRAIN}")
    found = {name: (kind, tables.get(f"{name}-{TRAIN}")) for name, kind in EVIDENCE.items()}
    evidence = {name: kind.from_sound(table) for name, (kind, table) in found.items() if table is not None}
    for split, rows in drawn.rows.items():
        queries = tables[f"queries-{TRAIN}"].take(pa.array(rows))
        given = {
            f"queries-{split}": queries,
            f"filter-{split}": None if pairs is None else pairs_of(pairs, rows),
            f"judged-{split}": None if judged is None else judged_of(judged, queries["uid"]),
            **{f"{name}-{split}": of_train.take(rows).table() for name, of_train in evidence.items()},
        }
        spread |= {stem: table for stem, table in given.items() if table is not None and len(table)}
    warn_of_lost_bags(evidence, drawn)
    return spread


def warn_of_lost_bags(evidence: Mapping[str, Evidence], drawn: DrawnSplits) -> None:
    """Say how many bags of training queries are in no split, because their queries are in several. evidence: by kind."""
    bags = evidence.get(LabelBags.kind)
    lost = 0 if bags is None else len(bags) - sum(len(bags.take(rows)) for rows in drawn.rows.values())
    if lost:
        logger.warning("%d bags are left out: their queries are not all in one split now", lost)


def pairs_of(pairs: pa.Table, rows: Rows) -> pa.Table:
    """The filter pairs of some training queries, in their new row numbers. rows: ascending."""
    columns = [pairs[name].to_numpy() for name in FILTER_SCHEMA.names]
    return filter_table(pairs_of_rows(np.stack(columns, axis=1).astype(np.int64), rows))


def judged_of(judged: pa.Table, uids: pa.ChunkedArray) -> pa.Table:
    """The judgements of queries with these uids."""
    return judged.filter(pc.is_in(judged["query"], value_set=uids))


def spread_images(images: Mapping[str, RaggedImages | None], drawn: DrawnSplits) -> dict[str, RaggedImages]:
    """The images by split, and of "labels", those of train spread over the splits."""
    spread = {name: given for name, given in images.items() if given is not None and name != TRAIN}
    of_train = images.get(TRAIN)
    if of_train is not None:
        spread |= {split: of_train.take(rows) for split, rows in drawn.rows.items()}
    return spread
