"""Columns and tables of other libraries, through Arrow's PyCapsule protocol: pandas, Polars, DuckDB, pyarrow, Hugging Face."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from xmc.errors import InputError

__all__ = ["ArrowArray", "ArrowStream", "is_arrow", "list_of_column", "table_of"]


class ArrowArray(Protocol):
    """What gives an array, or a record batch, by Arrow's PyCapsule protocol."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """Two capsules: the schema, and the array."""


class ArrowStream(Protocol):
    """What gives a chunked array, or a table, by Arrow's PyCapsule protocol."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A capsule of the stream."""


def is_arrow(given: Any) -> bool:
    """Whether an object is an array or a table by Arrow's PyCapsule protocol, and no class of such."""
    exports = hasattr(given, "__arrow_c_stream__") or hasattr(given, "__arrow_c_array__")
    return exports and not isinstance(given, type)


def list_of_column(given: Any, wanted: str) -> list[Any]:
    """The values of an array, a chunked array or a Series as Python has them.

    Raises InputError, which begins with `wanted`, for a table, and for strings that are not UTF-8.
    """
    try:
        column = pa.chunked_array(given) if hasattr(given, "__arrow_c_stream__") else pa.array(given)
        if pa.types.is_struct(column.type):
            raise InputError(
                f"{wanted}, but given is a table with the columns {_names(column.type)}; name one of them, such as "
                f"table[{column.type.field(0).name!r}]."
            )
        values: list[Any] = column.to_pylist()
    except (pa.ArrowException, UnicodeDecodeError, TypeError) as error:
        raise InputError(
            f"{wanted}, but {type(given).__name__} cannot be read through Arrow's PyCapsule protocol: {error}"
        ) from error
    return values


def table_of(given: Any, wanted: str) -> pa.Table:
    """A table of another library as one of pyarrow.

    Takes what speaks Arrow's PyCapsule protocol (pandas from 2.2 on, Polars, DuckDB's relations, tables, record batches and
    readers of pyarrow), a datasets.Dataset and a pyarrow.dataset.Dataset. Raises InputError, which begins with `wanted`, for
    anything else.
    """
    try:
        if is_arrow(given):
            return pa.table(given)
        if hasattr(given, "with_format") and hasattr(given, "select_columns") and hasattr(given, "__getitem__"):
            return given.with_format("arrow")[:]  # a datasets.Dataset
        if hasattr(given, "to_table") and hasattr(given, "schema"):
            return given.to_table()  # a pyarrow.dataset.Dataset
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(f"{wanted}, but {type(given).__name__} is no table of rows: {error}") from error
    lazy = " Collect it first." if hasattr(given, "collect") else ""
    streamed = " Load it without streaming=True." if hasattr(given, "with_format") else ""
    raise InputError(
        f"{wanted}, such as a pandas or Polars DataFrame, a DuckDB relation or a pyarrow.Table, but given is a "
        f"{type(given).__name__}.{lazy}{streamed}"
    )


def _names(kind: pa.StructType) -> str:
    return ", ".join(kind.field(place).name for place in range(kind.num_fields))
