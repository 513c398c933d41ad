"""The same columns as tables, and as columns, of every library that is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

__all__ = ["COLUMNS", "TABLES", "column_of", "table_of"]


def _polars() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("polars", reason="Polars is not installed; pip install polars")


def _pandas() -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed; pip install pandas")


def _duckdb(table: pa.Table) -> Any:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed; pip install duckdb")
    return duckdb.from_arrow(table)


def _huggingface(table: pa.Table) -> Any:
    pytest.importorskip("datasets", reason="datasets is not installed; pip install datasets")
    return import_module("datasets").Dataset.from_dict(table.to_pydict())


TABLES: dict[str, Callable[[pa.Table], Any]] = {
    "table": lambda table: table,
    "batch": lambda table: table.combine_chunks().to_batches()[0],
    "reader": lambda table: table.to_reader(),
    "dataset": lambda table: pyarrow.dataset.dataset(table),
    "pandas": lambda table: _pandas().DataFrame(table.to_pydict()),
    "polars": lambda table: _polars().from_arrow(table),
    "duckdb": _duckdb,
    "huggingface": _huggingface,
}
"""By library, what makes a table of it from one of pyarrow."""

COLUMNS: dict[str, Callable[[Sequence[str]], Any]] = {
    "array": lambda texts: pa.array(texts),
    "large": lambda texts: pa.array(texts, pa.large_string()),
    "view": lambda texts: pa.array(texts, pa.string_view()),
    "dictionary": lambda texts: pa.array(texts).dictionary_encode(),
    "chunked": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
    "objects": lambda texts: np.array(texts, object),
    "unicode": lambda texts: np.array(texts),
    "strings": lambda texts: np.array(texts, np.dtypes.StringDType()),
    "tuple": lambda texts: tuple(texts),
    "pandas": lambda texts: _pandas().Series(texts),
    "polars": lambda texts: _polars().Series(texts),
}
"""By kind, what makes a column of texts."""


def table_of(library: str, columns: dict[str, Any]) -> Any:
    """Columns as a table of a library; skips the test where it is not installed."""
    return TABLES[library](pa.table(columns))


def column_of(kind: str, texts: Sequence[str]) -> Any:
    """Texts as a column of some kind; skips the test where its library is not installed."""
    return COLUMNS[kind](texts)
