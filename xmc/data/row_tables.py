"""Rows of a source as tables of the canonical form, wherever they go: what is kept, and what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.arrays import Mask
from xmc.data.checks import checked_rows
from xmc.data.files.undecodable import with_encoding
from xmc.data.rows import Defect, Row
from xmc.data.sources import RowSource
from xmc.data.tables import GROUP
from xmc.errors import ConfigError, DataError

__all__ = ["RowTables", "require_policy"]


def require_policy(on_bad_row: str) -> None:
    """Raise ConfigError for a policy for bad rows that is none."""
    if on_bad_row not in ("error", "drop"):
        raise ConfigError(f"on_bad_row must be error or drop, but is {on_bad_row!r}.")


class RowTables:
    """Makes the tables of a source, and counts.

    dropped: rows left out, by reason. warnings: rows kept, by reason. positives: number of positive pairs, by split. remarks:
    sentences about whole files.
    """

    remedy = "convert with --on-bad-row=drop to leave bad rows out; `xmc data validate` lists all defects."
    """What can be done about a bad row beside correcting it."""

    def __init__(self, source: RowSource, on_bad_row: str) -> None:
        """on_bad_row: "error" refuses at the first row that cannot be used, "drop" leaves such rows out."""
        self.source, self.on_bad_row = source, on_bad_row
        self.dropped: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.positives: Counter[str] = Counter()
        self.remarks: list[str] = []
        self.again: tuple[str, ...] = ()

    def batches(
        self, schema: pa.Schema, split: str | None, label_rows: npt.NDArray[np.int64] | None
    ) -> Iterator[tuple[pa.RecordBatch, Mask]]:
        """The usable rows of a split, or with None of the label table, some at a time, and which rows of the source these are.

        schema: of the batches. label_rows: for each label of the source its row in the table or -1; None for the label table.
        Raises DataError for a source that cannot be read, and, with "error", for the first bad row.
        """
        for rows, defects in checked_rows(self.source, split, 0 if label_rows is None else len(label_rows)):
            self.account(defects)
            batch = self._batch([row for row in rows if row is not None], schema, label_rows)
            if split is not None:
                self.positives[split] += len(batch["labels"].flatten())
            yield batch, np.array([row is not None for row in rows], bool)

    def account(self, defects: list[Defect]) -> None:
        """Count defects. Raises DataError for the first that makes a row unusable, where these are refused."""
        for defect in defects:
            if defect.of_file:
                self.remarks.append(str(defect))
                self.again = self.again or defect.again
            elif defect.severity == "warning":
                self.warnings[defect.reason] += 1
            elif self.on_bad_row == "error":
                raise DataError(
                    f"{defect} Correct it, or {self.remedy}", again=defect.again or with_encoding(defect.message)
                )
            else:
                self.dropped[defect.reason] += 1

    def _batch(self, rows: list[Row], schema: pa.Schema, label_rows: npt.NDArray[np.int64] | None) -> pa.RecordBatch:
        columns: dict[str, list[Any]] = {"uid": [row.uid for row in rows], "text": [row.text for row in rows]}
        if label_rows is not None:
            positives = [self._positives(row, label_rows) for row in rows]
            columns["labels"] = [[label for label, _ in pairs] for pairs in positives]
            columns["relevance"] = [
                None if all(value == 1.0 for _, value in pairs) else [value for _, value in pairs]
                for pairs in positives
            ]
            columns["rejected"] = [self._rejected(row, label_rows) or None for row in rows]
            columns["labelled"] = [None if row.labelled else False for row in rows]
            columns[GROUP] = [row.group for row in rows]
        return pa.record_batch([pa.array(columns[column.name], column.type) for column in schema], schema=schema)

    def _positives(self, row: Row, label_rows: npt.NDArray[np.int64]) -> list[tuple[int, float]]:
        """(label row, relevance) in the new rows, ascending, without those of dropped labels."""
        moved = [(int(label_rows[label]), value) for label, value in row.positives]
        kept = sorted(pair for pair in moved if pair[0] >= 0)
        if len(kept) < len(moved):
            self.dropped["positive of a dropped label"] += len(moved) - len(kept)
        return kept

    def _rejected(self, row: Row, label_rows: npt.NDArray[np.int64]) -> list[int]:
        """The rejected labels in the new rows, ascending, without dropped ones."""
        moved = [int(label_rows[label]) for label in row.all_rejected]
        kept = sorted(label for label in moved if label >= 0)
        if len(kept) < len(moved):
            self.dropped["rejection of a dropped label"] += len(moved) - len(kept)
        return kept
