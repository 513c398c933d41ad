"""What the result of a job looks like: its format, and which columns of the input stand beside the answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from xmc.batch.formats import OUTPUT_FORMATS
from xmc.batch.options import Columns
from xmc.data.files import TextForm, WantedColumn, open_file
from xmc.data.files.addresses import InputFile
from xmc.data.files.cells import first_unsplittable
from xmc.data.files.columnar import is_text
from xmc.errors import ConfigError, DataError, InputError

__all__ = ["KEPT", "OutputForm", "kept_columns", "wanted_columns"]

KEPT = "kept "
"""Before the names of columns that are kept, in a batch of input."""
_OF_NUMBERS = frozenset("0123456789+-.einfa")


@dataclass(frozen=True)
class OutputForm:
    """How results are written.

    format: a name in xmc.batch.formats.OUTPUT_FORMATS. separator: between the items of a list in CSV; "" in formats that have
    lists. keep: whether all columns of the input are written beside the result, or the names of those that are. formulas: in
    CSV "escape" or "keep", what spreadsheets would take for formulas; "" in other formats.
    """

    format: str = "parquet"
    separator: str = ""
    keep: bool | tuple[str, ...] = False
    formulas: str = ""

    @classmethod
    def from_options(
        cls, format: str, separator: str | None, keep: bool | Sequence[str], formulas: str | None = None
    ) -> OutputForm:
        """separator: None for "," in CSV. formulas: None for "escape" in CSV. Raises ConfigError for values that do not fit."""
        if isinstance(keep, str):
            raise ConfigError(f"Columns to keep are True or a list of names; put {keep!r} into a list.")
        lists = OUTPUT_FORMATS[format].lists
        if lists and separator is not None:
            raise ConfigError(f"A separator is for the format csv; {format} has lists.")
        if format != "csv" and formulas is not None:
            raise ConfigError(
                f"What becomes of formulas is for the format csv; no spreadsheet runs what {format} holds."
            )
        if formulas not in (None, "escape", "keep"):
            raise ConfigError(f"Formulas are to be 'escape' or 'keep', but are {formulas!r}.")
        TextForm(separator=separator)
        given = "" if lists else "," if separator is None else separator
        if given and _OF_NUMBERS.issuperset(given):
            raise ConfigError(f"The separator {given!r} cannot be told from numbers; name another one.")
        if "'" in given and formulas != "keep":
            raise ConfigError(
                f"The separator {given!r} cannot be told from what formulas are escaped by; name another one."
            )
        names = keep if isinstance(keep, bool) else tuple(dict.fromkeys(keep))
        return cls(format, given, names, (formulas or "escape") if format == "csv" else "")

    def describe(self) -> dict[str, Any]:
        """JSON values by name, without what is as by default."""
        described: dict[str, Any] = {"format": self.format} if self.format != "parquet" else {}
        described |= {"separator": self.separator} if self.separator else {}
        return described | ({"formulas": self.formulas} if self.formulas == "escape" else {})

    def require_columns(self, schema: pa.Schema) -> None:
        """Raise InputError for a column of the result that the format cannot hold."""
        for field in schema:
            if not OUTPUT_FORMATS[self.format].takes(field.type):
                raise InputError(
                    f"The column {field.name!r} is of type {field.type}, which {self.format} cannot hold; choose --format "
                    f"parquet, or leave it out."
                )

    def require_items(self, items: Sequence[str], what: str) -> None:
        """Raise InputError where labels, or their texts, cannot be told from one another in a cell of CSV."""
        if not self.separator:
            return
        unsplittable = first_unsplittable(items, self.separator)
        if unsplittable is not None:
            raise InputError(
                f"The {what} {unsplittable!r} would not be read back from a list with {self.separator!r} between; choose "
                f"another --separator, or --format parquet or jsonl."
            )


def kept_columns(files: Sequence[InputFile], columns: Columns, form: OutputForm, result: Sequence[str]) -> pa.Schema:
    """The columns of some input that are written beside the result, in the order in which they appear.

    result: names of the columns of the result. The column of uids is one of these where it has its name. A file that lacks a
    column has null in it.

    Raises DataError for a column that is named and that a file lacks, for one that has the name of a column of the result, and
    for one that has another type in another file; InputError for a type that the format cannot hold.
    """
    kinds: dict[str, pa.DataType] = {}
    for file in files if form.keep else ():
        names = _every_name(file, columns) if isinstance(form.keep, bool) else form.keep
        opened = open_file(file, wanted_columns(columns, names, not isinstance(form.keep, bool)), columns.form)
        for column in opened.wanted[len(columns.wanted) :]:
            kind = _plain(opened.schema.field(column.field).type)
            before = kinds.setdefault(column.name, kind)
            if pa.types.is_null(before):
                kinds[column.name] = kind
            elif kind not in (before, pa.null()):
                raise DataError(
                    f"The column {column.name!r} of {file.address} is of type {kind}, but of {before} in a file before; "
                    f"convert one of them, or keep other columns."
                )
            if column.name in result:
                raise DataError(
                    f"{file.address} has a column {column.name!r}, and so has the result; rename it, or name the columns to "
                    f"keep without it, by --keep-column."
                )
    schema = pa.schema(list(kinds.items()))
    form.require_columns(schema)
    return schema


def wanted_columns(columns: Columns, kept: Iterable[str], required: bool = False) -> tuple[WantedColumn, ...]:
    """What is asked of a file: what the work reads, and then the columns that are kept, which are `required` or may lack.

    The column of uids is not kept a second time where it has the name that it has in the result.
    """
    uid = columns.wanted[0]
    names = [name for name in kept if not name == uid.name == uid.field]
    return *columns.wanted, *(WantedColumn(name, "any", required, KEPT + name) for name in names)


def _every_name(file: InputFile, columns: Columns) -> tuple[str, ...]:
    """The names of all columns of a file."""
    return open_file(file, columns.wanted, columns.form).every_name()


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if is_text(kind) else kind
