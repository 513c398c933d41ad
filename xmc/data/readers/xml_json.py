"""The XML Repository's raw layout: trn.json, tst.json, lbl.json (or .json.gz), one JSON object a line.

A query has uid, title, optionally content, target_ind (0-based label rows) and target_rel (their relevances, 0 for a label
that was judged not relevant); a label uid, title, content. The text is title and content, joined by a space.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmc.data.readers.filters import FilteredSource
from xmc.data.rows import Defect, Row, find_file, read_lines
from xmc.data.sources import TabularColumns

__all__ = ["XmlJsonSource"]

FILES = {"train": "trn.json", "test": "tst.json"}


class XmlJsonSource(FilteredSource):
    """See the module."""

    format = "xml-json"

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        """See RowSource."""
        self.directory, self.name = path, path.name
        self.splits = tuple(split for split, name in FILES.items() if find_file(path, name))

    @classmethod
    def fits(cls, path: Path) -> bool:
        """Whether the directory holds lbl.json and a split."""
        return bool(find_file(path, "lbl.json") and find_file(path, *FILES.values()))

    def labels(self) -> Iterator[Row | Defect]:
        """lbl.json."""
        file = find_file(self.directory, "lbl.json")
        assert file is not None
        yield from _rows(file, with_labels=False)

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        """trn.json or tst.json."""
        file = find_file(self.directory, FILES[split])
        assert file is not None
        yield from _rows(file, with_labels=True)


def _rows(file: Path, with_labels: bool) -> Iterator[Row | Defect]:
    for item in read_lines(file):
        if isinstance(item, Defect):
            yield item
            continue
        line, text = item
        try:
            values = json.loads(text)
            yield _row(file, line, values, with_labels)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"the line is not a JSON object with uid and title ({error})."
            yield Defect("error", file, line, "malformed line", message, row_lost=True)


def _row(file: Path, line: int, values: dict[str, Any], with_labels: bool) -> Row:
    text = f"{values.get('title') or ''} {values.get('content') or ''}".strip()
    labels = [_row_number(label) for label in values["target_ind"]] if with_labels else []
    relevance = values.get("target_rel") if with_labels else None
    return Row(
        file, line, str(values["uid"]), text, labels, None if relevance is None else [float(r) for r in relevance]
    )


def _row_number(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"label {value!r} is not a whole number")
    return int(value)
