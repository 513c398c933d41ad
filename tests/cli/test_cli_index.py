"""`xmc index`: tuned, by name, by default; what it prints, refuses and leaves."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail, fail_each, xmc
from rich.console import Console

from xmc.cli.index import _table
from xmc.cli.units import parse_bytes, parse_seconds
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError
from xmc.indexes import designs
from xmc.indexes.factory import build_index
from xmc.indexes.tuning import Goal, OperatingPoint, Tuned
from xmc.search.retriever import Retriever
from xmc.training.trainer import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """wordnet-8k, trained for a moment."""
    small = {"dimension": 32, "table_rows": 8192}
    config = TrainConfig.from_mapping({"epochs": 1, "batch_size": 1024, "encoder": {"kind": "static", **small}})
    return train(Dataset.load("wordnet-8k"), config, tmp_path_factory.mktemp("index") / "run").directory


@pytest.mark.slow
def test_tuned_for_a_goal(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    done = xmc("index", run, "--recall", 0.9, "--k", 5, "--max-memory", "500kB", "--budget", "60s", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "goal: recall@5 0.9, throughput" in done.stdout
    assert "▸" in done.stdout
    assert "on 2,000 queries" in done.stdout
    assert done.stderr == ""  # no bar where nobody watches
    assert not list(run.parent.glob("*.tuning.jsonl"))
    tuned, exact = Retriever.load(out), Retriever.load(run)
    assert tuned.index.design.kind == "faiss"
    assert tuned.index.measured["goal"] == {
        "recall": 0.9, "k": 5, "max_memory": 500_000, "metric": "throughput", "budget": 60.0
    }  # fmt: skip
    assert tuned.index.measured["bytes_per_label"] * 7488 <= 500_000
    texts = Dataset.load("wordnet-8k").split("test").texts.to_pylist()[:500]
    found, truth = (one.search(texts, 5)[0] for one in (tuned, exact))
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]) >= 0.85


@pytest.mark.slow
def test_queries_of_the_users_own(run: Path, tmp_path: Path) -> None:
    texts = [*Dataset.load("wordnet-8k").split("test").texts.to_pylist()[:300], None]
    pq.write_table(pa.table({"text": texts}), tmp_path / "mine.parquet")
    done = xmc(
        "index", run, "--recall", 0.5, "--queries", tmp_path / "mine.parquet", "--budget", "5s", "--out", tmp_path / "a"
    )
    assert "on 301 queries" in done.stdout, done.stderr
    pq.write_table(pa.table({"words": texts}), tmp_path / "other.parquet")
    fail(xmc("index", run, "--queries", tmp_path / "other.parquet", "--recall", 0.5), "has no column 'text'")


@pytest.mark.slow
def test_by_default_few_labels_are_searched_exactly(run: Path, tmp_path: Path) -> None:
    named = xmc("index", run, "int8", "--rescore", 3, "--out", tmp_path / "named")
    assert "int8: 32 bytes a label, 239.6 kB in all" in named.stdout
    assert Retriever.load(tmp_path / "named").index.rescore == 3
    done = xmc("index", tmp_path / "named")
    assert "7,488 labels are searched exactly" in done.stdout
    assert "exact: 128 bytes a label" in done.stdout
    assert Retriever.load(tmp_path / "named").index.design.kind == "exact"
    assert xmc("index", tmp_path / "named", "NSG16").returncode == 0
    assert Retriever.load(tmp_path / "named").index.design.kind == "faiss"


def test_the_table_fits_a_terminal(run: Path, tmp_path: Path) -> None:
    point = OperatingPoint(
        "IVF65536,PQ512x4fs,Refine(SQ8)", {"nprobe": 65536.0, "k_factor_rf": 32.0}, 2, 0.99, 0.0, 1e6, 99.0, 99.0, 9e3, 9e3
    )  # fmt: skip
    unmeasured = replace(point, recall=0.995, latency_p50=float("nan"), latency_p99=float("nan"))
    console = Console(width=80, file=io.StringIO())
    console.print(_table(Tuned(build_index("exact", 4), point, [point, unmeasured]), Goal(), 2000))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("▸ IVF65536,PQ512x4fs,Refine(SQ8)", "nprobe=65536", "k_factor_rf=32", "rescore=2", "1,000,000"):
        assert words in text
    assert "0.9950" not in text


def test_mistakes_are_sentences_and_change_nothing(run: Path, tmp_path: Path) -> None:
    before = (run / "manifest.json").read_bytes()
    (tmp_path / "file").touch()
    nowhere = (
        "--queries",
        tmp_path / "nowhere.parquet",
    )  # what is refused before it is read is refused before all work
    to_a_file = ["index", run, "--recall", "1", *nowhere, "--out", tmp_path / "file"]
    fail_each(
        (to_a_file, "file is a file; name a directory for the run"),
        (["index", run, *nowhere, "--rescore", "2"], "--rescore is for a design that is named"),
        (["index", run, "--max-memory", "1kB", "--budget", "1s"], "No design holds 7,488 labels in 1.0 kB"),
        (["index", run, "HNSW16", "--recall", "0.9"], "--recall is for tuning, which chooses the design"),
        (["index", run, "--budget", "soon"], "--budget must be a duration such as 10m, 90s or 1h, but is 'soon'"),
    )
    assert (run / "manifest.json").read_bytes() == before


def test_many_labels_are_tuned_by_default(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Retriever.load(run)
    assert loaded.index.design.kind == "exact"
    assert loaded.tuning_queries.shape == (2000, 32)
    monkeypatch.setattr(designs, "EXACT_BELOW", 5000)
    loaded.reindex("auto")
    assert loaded.index.measured["goal"] == asdict(Goal())
    assert loaded.index.measured["recall"] >= 0.99


@pytest.mark.parametrize(
    ("text", "value"), [("2GB", 2 * 10**9), ("500 MiB", 500 * 2**20), ("1000", 1000), ("1.5kb", 1500), ("3B", 3)]
)
def test_sizes(text: str, value: int) -> None:
    assert parse_bytes(text, "--max-memory") == value


@pytest.mark.parametrize(("text", "value"), [("10m", 600), ("90s", 90), ("1h", 3600), ("45", 45), ("0.5m", 30)])
def test_durations(text: str, value: float) -> None:
    assert parse_seconds(text, "--budget") == value


@pytest.mark.parametrize("text", ["", "GB", "2 gigs", "-1GB", "0", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-memory must be a size such as 2GB or 500MiB"):
        parse_bytes(text, "--max-memory")
