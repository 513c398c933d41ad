"""Predictions as a table: queries of a list, a column or a table in, one row of answers for each out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from xmc.data.arrow_objects import is_arrow, table_of
from xmc.data.files import TextForm, WantedColumn
from xmc.data.files.columnar import columns_of_table
from xmc.errors import InputError
from xmc.search.answers import Answer

__all__ = ["predicted_table"]


def predicted_table(
    queries: Any,
    answer: Callable[[Any], Answer],
    text: str | None,
    uid: str | None,
    known: Mapping[str, str],
    label_texts: bool,
) -> pa.Table:
    """The answers to some queries as a table; see Retriever.predict_table.

    answer: what answers queries. text, uid: the columns of a table that hold texts and uids. known: what the source of the
        training data called its columns, which are taken where they are not named and the table has them.
    """
    if not _is_table(queries):
        named = text or uid
        if named:
            raise InputError(f"The column {named!r} is named, but queries are no table; leave it out.")
        return pa.table(answer(queries).columns(label_texts))
    table = table_of(queries, "queries must be texts or a table of them")
    names = table.column_names
    text = text or (known["text"] if known.get("text") in names else "text")
    uid = uid or (known["uid"] if known.get("uid") in names else "uid" if "uid" in names else None)
    wanted = [WantedColumn(text, "text", key="text"), *([WantedColumn(uid, "uid", key="uid")] if uid else [])]
    columns = columns_of_table(table, wanted, TextForm(), "the table of queries").columns()
    uids = {"uid": columns[1]} if uid else {}
    return pa.table({**uids, **answer(columns[0]).columns(label_texts)})


def _is_table(queries: Any) -> bool:
    """Whether queries are a table with columns, and not a list or a column of texts."""
    if hasattr(queries, "schema") or hasattr(queries, "column_names"):
        return True
    if not is_arrow(queries):
        return False
    return hasattr(queries, "columns")  # frames of pandas and Polars, relations of DuckDB
