"""Files of evidence beside a source: votes, candidate sets and bags of its training queries, which name them by uid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xmc.arrays import Mask, Rows
from xmc.data.drawing import TRAIN
from xmc.data.evidence import EVIDENCE
from xmc.data.evidence.rows import RowNames, RowProblems
from xmc.data.evidence.source_rows import EvidenceRows, defects_of
from xmc.data.files import LINE, MESSAGE, REASON, TextForm, WantedColumn, open_file
from xmc.data.rows import Defect, Row
from xmc.data.sources import RowSource, WrappedSource
from xmc.errors import ConfigError

__all__ = ["EvidencedSource"]

_WANTED: dict[str, list[WantedColumn]] = {
    "votes": [
        WantedColumn("query", "uid"),
        WantedColumn("label", "uid"),
        WantedColumn("source", "text"),
        WantedColumn("value", "relevance"),
    ],
    "sets": [
        WantedColumn("query", "uid"),
        WantedColumn("labels", "labels"),
        WantedColumn("least", "relevance", required=False),
        WantedColumn("most", "relevance", required=False),
    ],
    "bags": [WantedColumn("queries", "labels"), WantedColumn("labels", "labels"), WantedColumn("counts", "relevance")],
}
"""The columns of the files of each kind: those of the tables that become of them, with uids in place of rows."""


class EvidencedSource(WrappedSource):
    """A source with files of evidence about its split train."""

    def __init__(self, source: RowSource, files: Mapping[str, Path], form: TextForm | None = None) -> None:
        """files: by kind, see xmc.data.evidence.EVIDENCE. Raises ConfigError for a source without a split train, or that has
        evidence of the kind."""
        super().__init__(source)
        for kind in files:
            if TRAIN not in source.splits:
                raise ConfigError(f"--{kind} is about the split train, and {source.name} has none; leave it out.")
            if kind in source.evidence_kinds(TRAIN):
                raise ConfigError(
                    f"{source.name} has {kind} of train already; leave out --{kind}, or convert without them."
                )
        self._files, self._form = dict(files), form
        self._labels: list[str | None] = []
        self._queries: list[str | None] = []

    def labels(self) -> Iterator[Row | Defect]:
        """Those of the source, whose uids are remembered."""
        self._labels = []
        yield from _remembered(self.source.labels(), self._labels)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """Those of the source; the uids of train are remembered."""
        items = self.source.queries(split, labels)
        if split == TRAIN:
            self._queries = []
            items = _remembered(items, self._queries)
        yield from items

    def evidence_kinds(self, split: str) -> tuple[str, ...]:
        """See RowSource."""
        here = tuple(self._files) if split == TRAIN else ()
        return (*self.source.evidence_kinds(split), *here)

    def evidence(self, kind: str, split: str, queries: int) -> EvidenceRows:
        """See RowSource."""
        if split != TRAIN or kind not in self._files:
            return self.source.evidence(kind, split, queries)
        return _read(kind, self._files[kind], self._form, _Uids("query", self._queries), _Uids("label", self._labels))


def _remembered(items: Iterator[Row | Defect], uids: list[str | None]) -> Iterator[Row | Defect]:
    """The items, whose uids are added to a list; None for a row that is lost."""
    for item in items:
        if isinstance(item, Row) or item.row_lost:
            uids.append(item.uid if isinstance(item, Row) else None)
        yield item


class _Uids:
    """The uids of queries or labels, by row."""

    def __init__(self, what: str, uids: list[str | None]) -> None:
        self.what, self.uids = what, pa.array(uids, pa.string())

    def rows(self, owners: Rows, uids: pa.Array, problems: RowProblems) -> pa.Array:
        """The row of each uid; owners of one that is not known are problems. owners: row of the table, int64 [m]."""
        rows = pc.index_in(uids, value_set=self.uids, skip_nulls=True)
        unknown = np.flatnonzero(
            rows.is_null().to_numpy(zero_copy_only=False) & uids.is_valid().to_numpy(zero_copy_only=False)
        )
        first = {int(owners[place]): uids[place].as_py() for place in unknown[::-1].tolist()}
        message = f"there is no {self.what} {{!r}} in what is converted."
        problems.add(owners[unknown], f"unknown {self.what}", lambda row: message.format(first[row]))
        return rows


def _read(kind: str, file: Path, form: TextForm | None, queries: _Uids, labels: _Uids) -> EvidenceRows:
    """Raises DataError for a file that cannot be read, or lacks a column."""
    records = open_file(file, _WANTED[kind], form)
    table = pa.Table.from_batches(records.batches(), records.schema)
    problems = RowProblems(len(table))
    said = {row: reason for row, reason in enumerate(table[REASON].to_pylist()) if reason is not None}
    for row, reason in said.items():
        problems.add(np.array([row]), reason, lambda row: str(table[MESSAGE][row].as_py()))
    rows_of = {"query": queries, "queries": queries, "label": labels, "labels": labels}
    columns: dict[str, pa.Array] = {}
    for wanted in EVIDENCE[kind].schema:
        column = table[wanted.name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if wanted.name in rows_of:
            column = _rows(column, rows_of[wanted.name], problems)
        elif pa.types.is_list(column.type) and not pa.types.is_list(wanted.type):
            column = _READ[wanted.name](column, columns, problems)
        columns[wanted.name] = column.cast(wanted.type)
    lines = table[LINE].to_numpy()
    sound = pa.array(~problems.bad)
    found = pa.table(columns, schema=EVIDENCE[kind].schema).filter(sound)
    defects = list(defects_of(problems, file, lines, records.unit))
    names = RowNames(queries.uids, labels.uids)
    return EvidenceRows(kind, file, records.unit, lines[~problems.bad], found, defects, names)


def _rows(column: pa.Array, uids: _Uids, problems: RowProblems) -> pa.Array:
    """A column of uids, or of lists of them, as rows."""
    if not pa.types.is_list(column.type):
        return uids.rows(np.arange(len(column)), column, problems)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    rows = uids.rows(np.repeat(np.arange(len(column)), lengths), column.flatten(), problems)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), rows)


def _value(column: pa.Array, before: Mapping[str, pa.Array], problems: RowProblems) -> pa.Array:
    """One number a row."""
    values, given, several = _single(column)
    problems.add(several, "several values", lambda row: "there is more than one number in the column value.")
    return pa.array(values, mask=~given)


def _whole(name: str) -> Callable[[pa.Array, Mapping[str, pa.Array], RowProblems], pa.Array]:
    """A whole number a row: `least`, 1 where it is not given, or `most`, then the number of labels."""

    def read(column: pa.Array, before: Mapping[str, pa.Array], problems: RowProblems) -> pa.Array:
        values, given, several = _single(column)
        values = np.where(given, values, 1 if name == "least" else pc.list_value_length(before["labels"]).to_numpy())
        wrong = several | ~((values >= 0) & (values < 2**31) & (values == np.floor(values)))
        problems.add(
            wrong,
            f"bad {name}",
            lambda row: (
                f"the {name} must be a whole number from 0 to the number of labels, but is {_shown(column[row])}."
            ),
        )
        return pa.array(np.where(wrong, 0, values).astype(np.int64))

    return read


_READ: dict[str, Any] = {"value": _value, "least": _whole("least"), "most": _whole("most")}
"""How columns with one number a row are read from lists of numbers, after the columns before."""


def _shown(numbers: pa.Scalar) -> str:
    """A list of numbers as it was written."""
    return ", ".join("null" if number is None else f"{number:.12g}" for number in numbers.as_py())


def _single(column: pa.Array) -> tuple[Any, Mask, Mask]:
    """The number of each row, float64 [n], 0 for none; which rows have one; and which have several."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    values = np.zeros(len(column))
    flat = pc.fill_null(column.flatten(), np.nan).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])[: len(column)].astype(np.int64)
    values[lengths > 0] = flat[starts[lengths > 0]]
    return values, lengths > 0, lengths > 1
