"""The scripts that measure encoders, on a tiny model, and what is for a GPU on a CPU."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import minilm_directory, write_bert

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python process beside the scripts, on one core, without Triton's interpreter, which takes its time."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *map(str, arguments)]
    return subprocess.run(words, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)


TINY = """
import sys
from pathlib import Path
import encode
from encode_problems import Problem, Texts
from xmc.config import TransformerConfig

encode.ROUNDS, encode.PAUSE, encode.SQUARE = 2, 0, 64
texts = Texts("texts", ["a boat with two hulls", "a dog", "the cat sleeps in its house on the sea"])
options = TransformerConfig(directory=sys.argv[1], max_length=24)
for rows in encode.measured(Problem("tiny", Path(sys.argv[1]), texts, "cpu", options), (), 0):
    for row in rows:
        print(row.method, row.metric, row.unit, row.value, sep="|")
"""


@pytest.mark.slow
def test_every_method_encodes_the_same(tmp_path: Path) -> None:
    write_bert(tmp_path)
    done = run("-c", TINY, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if "|" in line]
    of_method: dict[str, dict[str, float]] = {}
    for method, metric, _, value in rows:
        of_method.setdefault(method.removesuffix(", tiny, texts"), {})[metric] = float(value)
    precisions = ("float32", "bfloat16")
    assert set(of_method) >= {f"{who} {one}" for who in ("xmc", "Hugging Face model") for one in precisions}
    peers = [name for name in of_method if name.startswith("sentence-transformers")]
    assert len(peers) in (0, 4)
    for name, found in of_method.items():
        assert found["forward + backward, texts"] > 0
        if name != "Hugging Face model float32":
            assert found["cosine to float32, smallest"] > (0.99 if "bfloat16" in name else 1 - 1e-6)


REFUSED = """
import sys
import run

for words in sys.argv[1:]:
    sys.argv = ["run.py", *words.split()]
    try:
        run.main()
    except SystemExit as end:
        print(end.code)
"""


@pytest.mark.slow
def test_options_that_do_not_fit() -> None:
    done = run("-c", REFUSED, "metrics_speed --epochs 2", "training --epochs 0", "training --small")
    assert done.stdout.split() == ["2", "2", "2"]
    errors = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
    assert errors == [
        "metrics_speed takes no --epochs.",
        "--epochs is 0; it must be 1 or more.",
        "--small tries out what --gpu runs; add --gpu.",
    ]


@pytest.mark.parametrize(
    ("table", "options", "methods", "metrics"),
    [
        pytest.param(
            "encode",
            ["--methods", "xmc bfloat16"],
            {f"xmc bfloat16, {model}, labels of wordnet-8k, gpu" for model in ("MiniLM", "SmolLM2-135M, LoRA")},
            {"forward", "forward + backward"},
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            "training",
            ["--epochs", "1", "--methods", "xmc MiniLM, LF-WordNet, bank", "xmc MiniLM, LF-WordNet, all"],
            {"xmc MiniLM, LF-WordNet, bank, 1 epochs", "xmc MiniLM, LF-WordNet, all, 1 epochs"},
            {"P@1", "training", "seconds a step", "tokens a second"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "vixml",
            ["--epochs", "1", "--methods", "xmc MiniLM", "xmc SmolLM2"],
            {"xmc MiniLM, LF-WordNet, 1 epochs", "xmc SmolLM2 135M, LoRA, LF-WordNet, 1 epochs"},
            {"P@1", "seconds a step", "share of the bfloat16 matmul rate"},
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_what_is_for_a_gpu_runs_on_a_cpu(
    tmp_path: Path, table: str, options: list[str], methods: set[str], metrics: set[str]
) -> None:
    minilm_directory()  # skips without it
    done = run("run.py", table, "--gpu", "--small", "--results", tmp_path / "results.csv", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "results.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} == methods
    for method in methods:
        assert {row["metric"] for row in rows if row["method"] == method} >= metrics
