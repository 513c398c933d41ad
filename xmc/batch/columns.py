"""Which columns of its input a job reads: those that were named, else those of the run's data set, else the usual ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xmc.batch.options import Columns
from xmc.data.files import WantedColumn, open_file
from xmc.data.files.addresses import list_files
from xmc.search.run_directory import RunDirectory

__all__ = ["columns_of_input"]


def columns_of_input(columns: Columns, run: str | Path, source: str) -> Columns:
    """The columns with the names that they have in the first file of some input.

    A column of texts or of uids that was not named is the one that the run's data set had in its source, if the file has one
    of that name; else "text", and "uid" or none.

    Raises StoreError for a run, and DataError for input, that cannot be read, and DataError where no column of texts is found.
    """
    known = RunDirectory(run).read_source_columns()
    text, uid = known.get("text", "text"), known.get("uid")
    no_texts = columns.payload in (columns.tokens, columns.embedding)
    if (columns.uid is not None or uid is None) and (no_texts or columns.text is not None):
        return columns
    asked = dict.fromkeys(name for name in (uid, columns.text, text, "text") if name is not None)
    file = open_file(list_files(source)[0], [WantedColumn(name, "any", required=False) for name in asked], columns.form)
    if columns.uid is None and uid is not None and file.has(uid):
        columns = replace(columns, uid=uid)
    if no_texts or columns.text is not None:
        return columns
    if file.has(text):
        return replace(columns, text=text)
    if file.has("text"):
        return replace(columns, text="text")
    missing = "no column 'text'" if text == "text" else f"no column {text!r}, as the run's data set had, and no 'text'"
    raise file.lacking(missing, "name the column of texts by --text-column")
