"""A file of changes of labels: a row for each label, with its uid, text, examples and further columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from xmc.data.files import LINE, MESSAGE, REASON, REMARK, TextForm, WantedColumn, open_file
from xmc.errors import DataError

__all__ = ["LabelRows"]

_WANTED = (
    WantedColumn("uid", "uid"),
    WantedColumn("text", "text", required=False),
    WantedColumn("examples", "labels", required=False),
    WantedColumn("negatives", "labels", required=False),
)
SHOWN = 20
"""Bad rows that an error names, at most."""


@dataclass(frozen=True)
class LabelRows:
    """The rows of a file, in its order.

    file: its name. unit: what `lines` count, from 1: lines of a text file, or rows. texts: None, or blank, for none. examples,
    negatives: queries that a label belongs to, or does not, perhaps none. columns: the further columns.
    """

    file: Path
    unit: str
    lines: list[int]
    uids: list[str]
    texts: list[str | None]
    examples: list[list[str]]
    negatives: list[list[str]]
    columns: pa.Table

    @classmethod
    def read(cls, file: Path, form: TextForm | None = None) -> LabelRows:
        """Read a Parquet, Arrow, CSV or JSON lines file with a column uid.

        form: its separator cuts examples that are written as one string. Values of further columns of CSV and JSON lines are
        strings, and JSON. Raises DataError for a file that cannot be read, and one that names all bad rows: those that the
        reader refuses, rows without a uid, uids that an earlier row has, and blank examples.
        """
        names = open_file(file, [], form).every_name()
        known = {column.name for column in _WANTED}
        further = [WantedColumn(name, "any", required=False) for name in names if name not in known]
        records = open_file(file, [*_WANTED, *further], form)
        table = pa.Table.from_batches(records.batches(), records.schema)
        values = table.select([LINE, REASON, MESSAGE, *known]).to_pylist()
        columns = table.drop_columns([LINE, REASON, MESSAGE, REMARK, *known])
        rows = cls(
            file,
            records.unit,
            [row[LINE] for row in values],
            [row["uid"] for row in values],
            [row["text"] for row in values],
            [row["examples"] or [] for row in values],
            [row["negatives"] or [] for row in values],
            columns,
        )
        rows.refuse(_problems(values))
        return rows

    def __len__(self) -> int:
        return len(self.uids)

    def refuse(self, problems: Mapping[int, str]) -> None:
        """Raise DataError where there are problems: a sentence by the number of a row, from 0."""
        if not problems:
            return
        said = [f"{self.unit} {self.lines[row]:,}: {problems[row]}" for row in sorted(problems)]
        more = f" (and {len(said) - SHOWN:,} more)" if len(said) > SHOWN else ""
        bad = "1 bad row" if len(said) == 1 else f"{len(said):,} bad rows"
        raise DataError(f"{self.file} has {bad}, and nothing was changed: {' '.join(said[:SHOWN])}{more}")


def _problems(values: list[dict[str, Any]]) -> dict[int, str]:
    """What is wrong with single rows, by their number."""
    problems, seen = {}, Counter[str]()
    for number, row in enumerate(values):
        uid = row["uid"]
        if row[REASON] is not None:
            problems[number] = row[MESSAGE]
        elif uid is None:
            problems[number] = "the row has no uid."
        elif seen[uid]:
            problems[number] = f"the label {uid!r} has a row already."
        elif any(not text.strip() for text in [*(row["examples"] or []), *(row["negatives"] or [])]):
            problems[number] = f"an example of the label {uid!r} is empty; leave it out."
        if uid is not None:
            seen[uid] += 1
    return problems
