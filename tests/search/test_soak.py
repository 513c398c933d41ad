"""The soak of benchmarks/soak.py: its oracle, what it calls a violation, and a short one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak

    return soak


def test_the_oracle_knows_the_labels_of_each_version(soak: Any) -> None:
    """Against copies of a dictionary that were kept."""
    choose = np.random.default_rng(0)
    vectors = choose.normal(size=(50, 8)).astype(np.float32)
    now = {f"label-{number}": int(choose.integers(0, 50)) for number in range(60)}
    oracle, kept = soak.Oracle(vectors, now), [((0, 1), dict(now))]
    for number in range(2, 40):
        version = (number // 15, number)
        after: dict[str, int | None] = {}
        for uid in (f"label-{one}" for one in choose.choice(80, 6, replace=False)):
            after[uid] = None if uid in now and choose.random() < 0.5 else int(choose.integers(0, 50))
        oracle.change(version, after)
        now = {uid: row for uid, row in {**now, **after}.items() if row is not None}
        kept.append((version, dict(now)))
    uids = np.array([*(f"label-{number}" for number in range(90)), None, "no label", "label-x"], object)
    queries = choose.normal(size=(3, 8)).astype(np.float32)
    assert (oracle.labels(), len(oracle)) == (now, len(now))
    for version, labels in kept:
        assert oracle.rows(uids, version).tolist() == [labels.get(uid, -1) for uid in uids]
        for shelf in (None, 7):
            rows = [row for uid, row in labels.items() if shelf is None or int(uid[6:]) % 20 == shelf]
            best = -np.sort(-queries @ vectors[rows].T, axis=1)[:, :10]
            found = oracle.best(queries, 10, version, shelf)[:, : best.shape[1]]
            np.testing.assert_allclose(found, best, rtol=1e-6)


@pytest.mark.slow
def test_another_label_or_vector_than_the_oracle_has_is_a_violation(soak: Any) -> None:
    corpus = soak.small_corpus(0)
    sizes = replace(soak.SIZES, labels=500, threads=1, pause=0.0, check_seconds=0.0)
    uids, rows = [f"label-{number}" for number in range(500)], np.arange(500)
    columns = {"shelf": [number % 20 for number in range(500)]}
    retriever = corpus.retriever(uids, rows.tolist(), columns, 3, np.random.default_rng(0))
    shifted = dict(zip(uids, (rows + 1).tolist(), strict=True))
    fewer = dict(zip(uids[:250], rows.tolist(), strict=False))
    for labels, expected in ((shifted, "has the score"), (fewer, "was not there at the version that was searched")):
        searches = soak.Searches(corpus, soak.Oracle(corpus.vectors, labels), soak.Serving.first(retriever), sizes, 0)
        end = time.monotonic() + 120  # a bound on waiting alone
        while not any(expected in said for said in searches.violations) and time.monotonic() < end:
            time.sleep(0.01)
        searches.stop()
        assert any(expected in said for said in searches.violations)


def test_what_grows_or_falls_is_said(soak: Any) -> None:
    from soak_search import Seen
    from soak_table import Minute

    def minute(number: int, **changed: Any) -> Any:
        sizes = {"resident": 900.0, "anonymous": 500.0, "peak": 950.0, "descriptors": 9, "threads": 4}
        seen = Seen(10, 20, [0.01], [changed.pop("recall", 0.95)])
        return Minute(number, 100, 5, 9, 0.5, (), (), seen, 0, **{**sizes, **changed})

    steady = [minute(number) for number in range(20)]
    assert soak.Verdict.of(steady, []).holds
    assert "2 violations, such as: first" in soak.Verdict.of(steady, ["first", "second"]).sentences[0]
    for changed, said in (
        ({"anonymous": 700.0}, "Memory grows: 500 MiB in the second quarter of the time, 700 MiB in the last."),
        ({"descriptors": 18}, "File descriptors grow: 9 in the second quarter of the time, 18 in the last."),
        ({"recall": 0.9}, "Recall falls: 95.00% in the first half of the time, 90.00% in the second."),
    ):
        worse = [minute(number, **(changed if number >= 10 else {})) for number in range(20)]
        assert soak.Verdict.of(worse, []).sentences == (said,)
    few = [minute(number, recall=(0.4, 1.0)[number % 2] - 0.05 * (number >= 10)) for number in range(20)]
    assert soak.Verdict.of(few, []).holds  # ten queries say nothing of 5%
    unseen = [replace(one, seen=Seen()) for one in steady[:3]]
    assert "the time was too short" in soak.Verdict.of(unseen, []).sentences[0]


@pytest.mark.slow
def test_a_short_soak(tmp_path: Path) -> None:
    results, environment = tmp_path / "results.csv", os.environ | {"XMC_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        BENCHMARKS / "run.py",
        "soak",
        "--hours",
        "0.004",
        "--labels",
        "2000",
        "--results",
        results,
    ]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with results.open(encoding="utf-8") as file:
        found = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
    assert found["violations"] == 0
    assert found["loads"] > 0
    assert found["changes"] > 0
    assert found["queries compared with all labels"] > 0
    assert not list((tmp_path / "benchmarks").glob("soak-*"))
