"""Targets: files of records, packed or not, as jobs, conversions and commands that take texts read them."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from record_files import read_by_job

from fuzzing.conversions import convert_safely, write_there
from fuzzing.targets import Case, Target, register
from xmc.batch.options import Columns
from xmc.data.files import TextForm, WantedColumn, open_file
from xmc.errors import XMCError

TEXTS = ["a red thing", 'a "blue", thing', "où est\nle thé ?", "🜚 gold; silver", "", "2020-01-01", "x" * 300]
LABELS = [["red"], ["blue", "sea"], ["thé"], [], ["red", "sea"], ["blue"], ["gold"]]


def table(lists: bool) -> pa.Table:
    """42 rows; labels as lists or as texts with semicolons between."""
    columns = {
        "uid": [f"q{row}" for row in range(42)],
        "text": TEXTS * 6,
        "labels": [labels if lists else ";".join(labels) for labels in LABELS] * 6,
        "price": [0.5 * row for row in range(42)],
    }
    if lists:
        columns["tokens"] = [list(range(row % 5 + 1)) for row in range(42)]
        columns["embedding"] = pa.array([[float(row), 1.0, 2.0] for row in range(42)], pa.list_(pa.float32(), 3))
    return pa.table(columns)


def text_of(ending: str) -> bytes:
    """The table as CSV, TSV, or JSON lines."""
    rows = table(ending in (".jsonl", ".json")).to_pylist()
    if ending in (".jsonl", ".json"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(rows[0]), delimiter="," if ending == ".csv" else "\t")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().encode()


def _text(folder: Path, ending: str) -> None:
    (folder / f"source{ending}").write_bytes(text_of(ending))


def _packed(folder: Path, ending: str, packing: str) -> None:
    pack: Callable[[bytes], bytes] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": lambda content: pa.compress(content, "zstd", asbytes=True),
    }[packing]
    (folder / f"source{ending}.{packing}").write_bytes(pack(text_of(ending)))


def _parquet(folder: Path, **options: Any) -> None:
    pq.write_table(table(True), folder / "source.parquet", row_group_size=20, **options)


def _arrow(folder: Path, ending: str = "arrow", **options: Any) -> None:
    feather.write_feather(table(True), folder / f"source.{ending}", chunksize=20, **options)


def _stream(folder: Path) -> None:
    with pa.ipc.new_stream(folder / "source.arrow", table(True).schema) as writer:
        writer.write_table(table(True), max_chunksize=20)


def read(case: Case) -> None:
    """As a job of texts, tokens and embeddings, as the commands that take texts, and as a conversion."""
    path = case.only
    refused: XMCError | None = None
    if case.chance.random() < 0.5:
        try:
            _as_jobs(path, case)
        except XMCError as error:
            refused = error
    else:
        convert_safely(path, case)
    if refused is not None:
        raise refused


def _as_jobs(path: Path, case: Case) -> None:
    """What is read does not depend on how a job is cut; every row is read or counted, and none is swallowed."""
    for columns in (Columns(tokens="tokens"), Columns(embedding="embedding"), Columns(uid="uid", text="labels")):
        with contextlib.suppress(XMCError):
            read_by_job(path, columns, rows_per_part=case.chance.choice([1, 7, 100]), dimension=3)
    with contextlib.suppress(XMCError):
        open_file(path, [WantedColumn("text", "text")], TextForm()).columns()
    cut = read_by_job(path, rows_per_part=7, window=5)
    assert read_by_job(path) == cut, "a job that is cut reads other rows than one that is not"
    columns = Columns()
    file = open_file(path, columns.wanted, columns.form)
    rows = sum(len(batch) for batch in file.batches())
    assert file.count(True) == rows, f"{file.count(True)} rows are counted, and {rows} read"
    require_no_loss(path, rows)


def require_no_loss(path: Path, rows: int) -> None:
    """The number of records, as other readers of the format count them; where they read the file at all."""
    name = path.name
    if name.endswith((".jsonl", ".json")):
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip(b" \t\r\n\x0b\x0c")]
        blank = not any(mark in path.read_bytes() for mark in (b"\x00", b"\r"))
        assert not blank or rows >= len(lines) - 1, f"{rows} rows of {len(lines)} lines"
    elif name.endswith(".csv"):
        records = _records(path.read_bytes())
        assert records is None or rows >= records, f"{rows} rows of {records} records"


def _records(content: bytes) -> int | None:
    """Number of records of CSV below its header; None where Python's own reader does not take it."""
    if (
        b"\x00" in content
        or b"\r" in content.replace(b"\r\n", b"")
        or not content.startswith(b"uid,text,labels,price\r\n")
    ):
        return None
    try:
        text = content.decode()
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except UnicodeDecodeError:
        return None
    except csv.Error as error:
        never_closed = "unexpected end of data" in str(error)
    else:
        return len(rows) - 1
    assert not never_closed, "a quote is never closed, and nobody says so"
    return None


FILES: dict[str, Callable[[Path], object]] = {
    **{f"file {ending}": partial(_text, ending=f".{ending}") for ending in ("csv", "tsv", "jsonl", "json")},
    **{
        f"file csv.{packing}": partial(_packed, ending=".csv", packing=packing)
        for packing in ("gz", "bz2", "zst", "xz")
    },
    **{f"file jsonl.{packing}": partial(_packed, ending=".jsonl", packing=packing) for packing in ("gz", "zst")},
    "file parquet": partial(_parquet, compression="none"),
    "file snappy.parquet": _parquet,
    "file zstd.parquet": partial(_parquet, compression="zstd", use_dictionary=False),
    "file v2.parquet": partial(_parquet, compression="none", data_page_version="2.0", version="2.6"),
    "file arrow": partial(_arrow, compression="uncompressed"),
    "file lz4.arrow": partial(_arrow, compression="lz4"),
    "file zstd.feather": partial(_arrow, ending="feather", compression="zstd"),
    "file stream.arrow": _stream,
}
for _name, _write in FILES.items():
    register(Target(_name, _write, read, prepare=write_there, alternatives=True))
