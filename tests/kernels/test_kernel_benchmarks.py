"""The scripts that measure the kernels run to their end, on tiny sizes and by the torch engine."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python process beside the scripts, on one core, without Triton's interpreter, which takes its time."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *map(str, arguments)]
    return subprocess.run(words, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    done = run("gpu_kernels.py", "--small", "--out", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "everything held"
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert all(check["held"] for check in found["checks"])
    assert {check["what"].split()[1].rstrip(":") for check in found["checks"]} == {
        "decoupled_softmax", "softmax", "soft_topk", "binary_cross_entropy", "multi_label_cluster_discrimination",
        "top-13", "top-100", "top-700",
    }  # fmt: skip
    required = [one["required"] for one in found["speeds"] if one["required"] is not None]
    assert required == [1.15, 1.0, 1.3, 1.6, 1.25, 1.0, 1.3, 1.6, 1.5, 1.0, 1.3, 1.6, 3.0, 1.5, 1.0, 1.3, 1.6,
                        1.4, 0.5, 1.0, 1.0]  # fmt: skip


def test_without_a_gpu_it_says_what_it_needs() -> None:
    done = run(
        "-c", "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''; import gpu_kernels; print(gpu_kernels.main([]))"
    )
    assert (done.stdout, done.stderr) == ("2\n", "torch finds no CUDA device; --small tries the script out on a CPU.\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "size", "method", "metrics"),
    [
        ("losses", "B=8 L=300 D=16 fp32", "xmc torch: softmax, one", ["extra memory / scores", "time / floor"]),
        ("topk", "k=7 B=8 L=300 D=16 bf16", "xmc torch", ["labels as in float32", "time / floor"]),
    ],
)
def test_a_table_of_a_size_of_ones_own(tmp_path: Path, table: str, size: str, method: str, metrics: list[str]) -> None:
    done = run("run.py", table, "--sizes", size, "--methods", method, "--results", tmp_path / "results.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "results.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert all(row["method"].startswith(method) and row["method"].endswith(size) for row in rows)
    assert {*metrics, "time", "extra memory"} == {row["metric"] for row in rows}


@pytest.mark.parametrize(
    ("table", "size", "sentence"),
    [
        ("losses", "B=8", "'B=8' is no size; write one as B=4096 L=131072 D=768 bf16, or with fp32."),
        (
            "losses",
            "B=8 L=9 D=4 int8",
            "'B=8 L=9 D=4 int8' is no size; write one as B=4096 L=131072 D=768 bf16, or with",
        ),
        ("topk", "B=8 L=9 D=4 fp32", "'B=8 L=9 D=4 fp32' is no case of topk; write one as k=100 B=1024 L=131072 D=768"),
        ("metrics_speed", "B=8 L=9 D=4 fp32", "metrics_speed takes no --sizes."),
    ],
)
def test_sizes_that_are_none(tmp_path: Path, table: str, size: str, sentence: str) -> None:
    done = run("run.py", table, "--sizes", size, "--results", tmp_path / "results.csv")
    assert done.returncode == 2
    assert sentence in done.stderr


FAILING = """
import time
from device_turns import Clock, measure

def failing():
    raise ValueError("no such kernel\\nsecond line")

calls = {"before": lambda: None, "fails": failing, "slow": lambda: time.sleep(1)}
found = measure(calls, Clock(4), "B=1", "cpu")
late = measure({"late": lambda: None}, Clock(0), "B=1", "cpu")
print(*found.seconds, *found.memory, 3 <= len(found.seconds["before"]) <= 9, late.seconds)
"""


def test_methods_that_fail_or_are_slow_are_named_and_left_out() -> None:
    done = run("-c", FAILING)
    failed, slow, late, measured = done.stdout.splitlines()
    assert failed == "fails left out at B=1: ValueError: no such kernel"
    assert slow.startswith("slow left out at B=1: a call takes ")
    assert slow.endswith(" s, too long for the time left.")
    assert late == "late left out at B=1: no time was left for it."
    assert measured == "before before True {}"
