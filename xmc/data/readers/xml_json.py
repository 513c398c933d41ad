"""The XML Repository's raw layout: trn.json, tst.json, lbl.json (or .json.gz), one JSON object a line.

A query has uid, title, optionally content, target_ind (0-based label rows) and target_rel (their relevances, 0 for a label
that was judged not relevant); a label uid, title, content. The text is title and content, joined by a space. Labels are named
by their rows, so a blank line is a malformed one, but for those at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmc.data.files import TextForm
from xmc.data.files.cells import CELLS, CellProblem
from xmc.data.files.json_lines import parse_line
from xmc.data.named.filters import FilteredSource
from xmc.data.rows import Defect, Row, find_file, read_lines, without_blank_end
from xmc.data.sources import TabularColumns

__all__ = ["XmlJsonSource"]

FILES = {"train": "trn.json", "test": "tst.json"}


class XmlJsonSource(FilteredSource):
    """See the module."""

    format = "xml-json"

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource."""
        self.directory, self.name = path, path.name
        self.form = columns.form
        self.splits = tuple(split for split, name in FILES.items() if find_file(path, name))

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether the directory holds lbl.json and a split."""
        return bool(find_file(path, "lbl.json") and find_file(path, *FILES.values()))

    def labels(self) -> Iterator[Row | Defect]:
        """lbl.json."""
        file = find_file(self.directory, "lbl.json")
        assert file is not None
        yield from _rows(file, self.form, with_labels=False)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """trn.json or tst.json."""
        file = find_file(self.directory, FILES[split])
        assert file is not None
        yield from _rows(file, self.form, with_labels=True)


def _rows(file: Path, form: TextForm, with_labels: bool) -> Iterator[Row | Defect]:
    for item in without_blank_end(read_lines(file, form)):
        if isinstance(item, Defect):
            yield item
            continue
        line, text = item
        values = parse_line(text)
        if isinstance(values, str):
            yield Defect("error", file, line, "malformed line", f"the line {values}.", row_lost=True)
            continue
        try:
            yield _row(file, line, values, with_labels)
        except CellProblem as problem:
            yield Defect("error", file, line, problem.reason, problem.message, row_lost=True)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            message = f"the line is not a JSON object with uid and title ({error})."
            yield Defect("error", file, line, "malformed line", message, row_lost=True)


def _row(file: Path, line: int, values: dict[str, Any], with_labels: bool) -> Row:
    uid = CELLS["uid"](values["uid"], None)
    if uid is None:
        raise CellProblem("null uid", "the row has no uid.")
    text = " ".join(filter(None, (CELLS["text"](values.get(key), None) for key in ("title", "content")))).strip()
    labels = [_row_number(label) for label in values["target_ind"]] if with_labels else []
    relevance = values.get("target_rel") if with_labels else None
    return Row(file, line, uid, text, labels, None if relevance is None else [float(value) for value in relevance])


def _row_number(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"label {value!r} is not a whole number")
    return int(value)
