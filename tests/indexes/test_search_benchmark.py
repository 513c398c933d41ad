"""benchmarks/run.py search --gpu --small: the table for a GPU, tried out on the processor."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"


@pytest.mark.slow
def test_the_table_for_a_gpu_can_be_tried_out(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    command = [
        sys.executable,
        RUN,
        "search",
        "--gpu",
        "--small",
        "--results",
        results,
        "--methods",
        "xmc",
        "faiss Flat",
    ]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    with results.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {
        "xmc exact, gpu", "xmc exact:bfloat16, gpu", "faiss Flat, gpu",
    }  # fmt: skip
    assert {row["metric"] for row in rows} >= {"recall@10", "batch of 1", "batch of 32", "batch of 1024", "p99 of 1"}
    assert all(float(row["value"]) > 99.9 for row in rows if row["metric"] == "recall@10")
