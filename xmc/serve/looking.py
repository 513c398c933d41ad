"""Labels looked up by their uid, or by words of their text."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
from pyarrow import compute as pc

from xmc.search.label_columns import ORIGIN, values_at
from xmc.search.labels import LabelVersion
from xmc.serve.failures import Refusal

__all__ = ["label_by_uid", "labels_by_text"]

MOST = 100
"""Number of labels that one search by text returns, at most."""


def label_by_uid(labels: LabelVersion, uid: str) -> dict[str, Any]:
    """uid, text and further columns of a label, as JSON values. Refusal (404) where there is none."""
    row = int(labels.index_rows([uid])[0])
    if row < 0:
        raise Refusal(404, f"There is no label {uid[:200]!r}.")
    return _entries(labels, np.array([row]))[0]


def labels_by_text(labels: LabelVersion, text: str, limit: int) -> list[dict[str, Any]]:
    """Labels whose text holds these characters, whatever their case, the shortest texts first; all where there are none.

    Refusal (422) for more than `MOST`.
    """
    if not 1 <= limit <= MOST:
        raise Refusal(422, f"limit must be from 1 to {MOST}, but is {limit}.")
    column = labels.everything["text"]
    holds = pc.match_substring(column, text, ignore_case=True).fill_null(False).to_numpy()
    if labels.alive is not None:
        holds = holds & labels.alive
    rows = np.flatnonzero(holds)
    lengths = pc.utf8_length(values_at(column, rows)).to_numpy(zero_copy_only=False)
    return _entries(labels, rows[np.argsort(lengths, kind="stable")[:limit]])


def _entries(labels: LabelVersion, rows: Any) -> list[dict[str, Any]]:
    """The values of some index rows."""
    table = labels.everything.drop_columns([name for name in ORIGIN.names if name in labels.everything.column_names])
    values = {name: values_at(table[name], rows).to_pylist() for name in table.column_names}
    return [
        {name: _plain(column[place]) for name, column in values.items() if name == "text" or column[place] is not None}
        for place in range(len(rows))
    ]


def _plain(value: Any) -> Any:
    """A value of a column as JSON has it."""
    plain = (str, int, float, bool, type(None), list, dict, datetime.date, datetime.datetime)
    return value if isinstance(value, plain) else str(value)
