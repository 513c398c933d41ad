"""What a file of records holds, as each of its readers has it: rows with their defects, a conversion, a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from xmc.batch.options import PAYLOAD, UID, Columns
from xmc.batch.rows import check_rows
from xmc.batch.windows import windows
from xmc.data.convert import Conversion, convert
from xmc.data.files import LINE, MESSAGE, REASON, TextForm, WantedColumn, open_file
from xmc.data.readers import TabularColumns, open_source

__all__ = ["ALL", "bad_rows", "converted", "good_rows", "read_by_conversion", "read_by_job"]

ALL = (WantedColumn("uid", "uid", required=False), WantedColumn("text", "text"), WantedColumn("labels", "labels"))
"""The columns uid, text and labels."""


def rows_of(path: Path, form: TextForm | None = None, wanted: tuple[WantedColumn, ...] = ALL) -> list[dict[str, Any]]:
    """Every row of a file, with what is wrong."""
    return [row for batch in open_file(path, wanted, form).batches() for row in batch.to_pylist()]


def good_rows(path: Path, form: TextForm | None = None, wanted: tuple[WantedColumn, ...] = ALL) -> list[Any]:
    """The cells of each row that can be used, as a tuple, or as one cell where one is wanted."""
    rows = [tuple(row[column.field] for column in wanted) for row in rows_of(path, form, wanted) if row[REASON] is None]
    return [row[0] for row in rows] if len(wanted) == 1 else rows


def bad_rows(
    path: Path, form: TextForm | None = None, wanted: tuple[WantedColumn, ...] = ALL
) -> list[tuple[int, str, str]]:
    """(line, reason, message) of each row that cannot be used."""
    return [(row[LINE], row[REASON], row[MESSAGE]) for row in rows_of(path, form, wanted) if row[REASON] is not None]


def converted(source: Path, destination: Path, on_bad_row: str = "error", **columns: Any) -> Conversion:
    """A conversion of a file, with options of TabularColumns."""
    return convert(
        open_source(source, None, TabularColumns(**columns)), destination, on_bad_row=on_bad_row, overwrite=True
    )


def read_by_conversion(source: Path, destination: Path, on_bad_row: str = "error", **columns: Any) -> list[Any]:
    """(uid, text, set of label uids) of each row that a conversion keeps."""
    data = converted(source, destination, on_bad_row, **columns).dataset
    split = data.split("train")
    names = data.labels.uids.to_pylist()
    return [
        (uid, text, {names[label] for label in row.indices})
        for uid, text, row in zip(split.uids.to_pylist(), split.texts.to_pylist(), split.positives, strict=True)
    ]


def read_by_job(
    source: Path,
    columns: Columns | None = None,
    rows_per_part: int = 100_000,
    window: int = 8192,
    dimension: int = 0,
) -> list[tuple[str | None, str]]:
    """(uid, text) of each good row as a job reads it: in parts, each in windows."""
    columns = columns or Columns()
    file = open_file(source, columns.wanted, columns.form)
    rows: list[tuple[str | None, str]] = []
    number = 0
    total = file.count()
    for start in range(0, total, rows_per_part):
        batches = file.batches(start, min(start + rows_per_part, total))
        for batch in windows(batches, [PAYLOAD], window, 16 << 20):
            if not file.has(columns.wanted[0].name):
                uids = pa.array(map(str, range(number, number + len(batch))), pa.string())
                batch = batch.set_column(batch.schema.get_field_index(UID), UID, uids)
            number += len(batch)
            checked = check_rows(batch, columns, dimension)
            kept = checked.uids.filter(pa.array(checked.good)).to_pylist()
            rows += zip(kept, checked.payload.to_pylist(), strict=True)
    return rows
