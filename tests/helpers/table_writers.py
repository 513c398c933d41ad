"""Tables as pandas, polars and DuckDB write them, in every format that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["LISTS", "WRITERS", "written"]

LISTS = (".jsonl", ".parquet", ".arrow")
"""Endings of files that have lists; in others labels are one string."""

Columns = dict[str, list[Any]]


def _pandas(columns: Columns, path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="tables that pandas writes need pandas")
    frame = pandas.DataFrame(columns)
    {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True, force_ascii=len(frame) % 2 == 0),
        ".parquet": lambda: frame.to_parquet(path),
        ".arrow": lambda: frame.to_feather(path),
    }[path.suffix]()


def _polars(columns: Columns, path: Path) -> None:
    polars = pytest.importorskip("polars", reason="tables that polars writes need polars")
    lists = polars.List(polars.String) if any(isinstance(cell, list) for cell in columns.get("labels", [])) else None
    frame = polars.DataFrame(columns, schema_overrides={"text": polars.String} | ({"labels": lists} if lists else {}))
    {
        ".csv": lambda: frame.write_csv(path),
        ".tsv": lambda: frame.write_csv(path, separator="\t"),
        ".jsonl": lambda: frame.write_ndjson(path),
        ".parquet": lambda: frame.write_parquet(path),
        ".arrow": lambda: (frame.write_ipc if len(frame) % 2 else frame.write_ipc_stream)(path),
    }[path.suffix]()


def _duckdb(columns: Columns, path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="tables that DuckDB writes need duckdb")
    import pyarrow as pa

    kinds = {"text": pa.string()}
    if any(isinstance(cell, list) for cell in columns.get("labels", [])):
        kinds["labels"] = pa.list_(pa.string())
    table = pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items()})
    form = {
        ".csv": "FORMAT csv, HEADER",
        ".tsv": "FORMAT csv, HEADER, DELIMITER '\t'",
        ".jsonl": "FORMAT json",
        ".parquet": "FORMAT parquet",
    }[path.suffix]
    with duckdb.connect() as connection:
        connection.register("given", table)
        connection.execute(f"COPY (SELECT * FROM given) TO '{path}' ({form})")


WRITERS: list[tuple[Callable[[Columns, Path], None], str]] = [
    *((_pandas, ending) for ending in (".csv", ".tsv", *LISTS)),
    *((_polars, ending) for ending in (".csv", ".tsv", *LISTS)),
    *((_duckdb, ending) for ending in (".csv", ".tsv", ".jsonl", ".parquet")),
]
"""What writes a table into a file, and the ending of its name."""


def written(writer: Callable[[Columns, Path], None], columns: Columns, path: Path) -> Path:
    """The file, written anew."""
    path.unlink(missing_ok=True)
    writer(columns, path)
    return path
