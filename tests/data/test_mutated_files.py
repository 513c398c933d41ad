"""A damaged file ends in a right data set or in a sentence, in every format and layout, and destroys nothing."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from layouts import LABELS, LAYOUTS
from table_writers import LISTS
from test_readers import WRITERS

from xmc.data.dataset import Dataset

PROGRAM = Path(__file__).parents[1] / "helpers" / "mutated_files.py"
TEXTS = ["a red thing", 'a "blue", thing', "où est\nle thé ?", "🜚 gold; silver", "", "2020-01-01", "x" * 300]


def table(lists: bool) -> pa.Table:
    labels = [["red"], ["blue", "sea"], ["thé"], [], ["red", "sea"], ["blue"], ["gold"]] * 6
    return pa.table(
        {
            "uid": [f"q{row}" for row in range(42)],
            "text": TEXTS * 6,
            "labels": labels if lists else [";".join(row) for row in labels],
            "price": [0.5 * row for row in range(42)],
        }
    )


def text_of(name: str) -> bytes:
    """The table as CSV, TSV or JSON lines."""
    import csv
    import io

    ending = "." + name.split(".")[1]
    rows = table(ending in LISTS).to_pylist()
    if ending == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(rows[0]), delimiter="," if ending == ".csv" else "\t")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().encode()


FILES: dict[str, Callable[[Path], object]] = {
    **{
        name: lambda path: path.write_bytes(text_of(path.name)) for name in ("source.csv", "source.tsv", "source.jsonl")
    },
    **{
        name: lambda path: path.write_bytes(gzip.compress(text_of(path.name)))
        for name in ("source.csv.gz", "source.jsonl.gz")
    },
    "source.parquet": lambda path: pq.write_table(table(True), path, row_group_size=20),
    "source.zstd.parquet": lambda path: pq.write_table(table(True), path, compression="zstd", use_dictionary=False),
    "source.arrow": lambda path: feather.write_feather(table(True), path, compression="uncompressed", chunksize=20),
    "source.lz4.arrow": lambda path: feather.write_feather(table(True), path, compression="lz4"),
}
SMALL: dict[str, Callable[[Path], object]] = {
    f"layout {name}": writer for name, writer in WRITERS.items() if name not in ("lines", "tabular")
}
FULL: dict[str, Callable[[Path], object]] = {f"folder {name}": writer for name, (writer, _) in LAYOUTS.items()}
CASES = FILES | SMALL | FULL


def run(root: Path, names: list[str], first: int, last: int) -> dict[str, dict[str, int]]:
    """The outcomes of each source, which is damaged by each seed."""
    folders = []
    for name in names:
        folder = root / name.replace("/", " ")
        folder.mkdir()
        file = folder / name if name in FILES else folder / "source"
        if name not in FILES:
            file.mkdir()
        CASES[name](file)
        there = Dataset.from_lists("there", LABELS, {"train": (["red", "white"], [[0], [1]])})
        there.save(folder / "there")
        folders.append(folder)
    command = [sys.executable, PROGRAM, str(first), str(last), *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    reached = [f"{folder.name}: {seed.read_text()}" for folder in folders if (seed := folder / "seed").exists()][-1]
    assert done.returncode == 0, f"{reached}: {done.returncode}, {done.stderr[-3000:]}"
    outcomes: dict[str, dict[str, int]] = json.loads(done.stdout)
    assert all(sum(counts.values()) == last - first for counts in outcomes.values())
    return outcomes


def test_damaged_files(tmp_path: Path) -> None:
    outcomes = run(tmp_path, list(CASES), 0, 8)
    assert set(outcomes) == {name.replace("/", " ") for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_many_damaged_files(name: str, tmp_path: Path) -> None:
    """As many as the variable XMC_CASES says; `make test-nightly` has 2,000."""
    (counts,) = run(tmp_path, [name], 0, int(os.environ.get("XMC_CASES", "100"))).values()
    print(name, counts)
    assert counts["refused"] > 0
