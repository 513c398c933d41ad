"""Tuning: the goal is met on other queries, or refused; what was measured is not measured again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from xmc.errors import ConfigError, InputError
from xmc.indexes.designs import bytes_per_label
from xmc.indexes.engines.faiss import STORAGES, FaissEngine, factory_of
from xmc.indexes.factory import build_index, load_index
from xmc.indexes.tuning import Goal, OperatingPoint, Tuned, pareto, tune
from xmc.indexes.tuning.candidates import TriedDesign, candidates, installed

DIMENSION = 32


def spread(count: int, seed: int) -> Any:
    """Unit vectors around centres, as label embeddings lie."""
    choose = np.random.default_rng(seed)
    centres = np.random.default_rng(77).normal(size=(200, DIMENSION))
    points = centres[choose.integers(0, 200, count)] + 0.6 * choose.normal(size=(count, DIMENSION))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


LABELS, QUERIES, OTHERS = spread(20_000, 0), spread(500, 1), spread(500, 2)
TRUTH = np.argsort(-(OTHERS @ LABELS.T), axis=1)[:, :10]


def recall(found: Any) -> float:
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), TRUTH.tolist(), strict=True)]))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Path, list[str]]:
    journal, stages = tmp_path_factory.mktemp("tuning") / "tuning.jsonl", list[str]()
    goal = Goal(recall=0.95, max_memory=20_000 * 100)
    return tune(LABELS, np.arange(20_000), QUERIES, goal, journal, stages.append), journal, stages


@pytest.mark.slow
def test_the_goal_is_met_on_other_queries(tuned: tuple[Tuned, Path, list[str]], tmp_path: Path) -> None:
    result, _, _ = tuned
    assert result.chosen.recall >= 0.95
    assert result.chosen.bytes_per_label <= 100
    assert result.index.design.kind == "faiss"
    found = result.index.search(OTHERS, 10)[0]
    assert recall(found) >= 0.93
    result.index.save(tmp_path / "index")
    loaded = load_index(tmp_path / "index")
    assert loaded.measured["recall"] == result.chosen.recall
    assert loaded.measured["goal"]["recall"] == 0.95
    assert loaded.measured["pareto"] == [asdict(point) for point in pareto(result.points)]
    np.testing.assert_array_equal(loaded.search(OTHERS, 10)[0], found)
    fastest = max(p.throughput for p in result.points if p.meets(Goal(recall=0.95, max_memory=2_000_000), 20_000))
    assert result.chosen.throughput == fastest
    assert {point.design for point in result.points} > {"exact", "int8", "binary"}


@pytest.mark.slow
def test_tuning_goes_on_where_it_was_stopped(tuned: tuple[Tuned, Path, list[str]]) -> None:
    result, journal, stages = tuned
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == len(stages) - 1  # all but exact search
    journal.write_text("".join(lines[:3]) + lines[3][:50])  # killed while the fourth was written
    again = list[str]()
    resumed = tune(LABELS, np.arange(20_000), QUERIES, Goal(recall=0.95, max_memory=2_000_000), journal, again.append)
    assert not set(stages[1:4]) & set(again)
    assert set(stages[4:]) <= set(again)
    assert resumed.points[1 : 1 + len(result.points)][0].design == stages[1]
    assert len(resumed.index) == 20_000
    other = list[str]()
    tune(LABELS, np.arange(20_000), OTHERS, Goal(recall=0.5, budget=0.01), journal, other.append)
    assert other == ["exact search"]  # other queries: nothing noted counts, and nothing fits the budget
    tune(LABELS, np.arange(20_000), QUERIES, Goal(recall=0.6, budget=0.01), journal, other.append)
    assert other == ["exact search"] * 2  # nor for another recall


@pytest.mark.slow
def test_a_goal_that_no_design_meets_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"No design holds 20,000 labels in 1.0 kB: .* exact, takes 2.6 MB"):
        tune(LABELS, np.arange(20_000), QUERIES, Goal(max_memory=1000))
    with pytest.raises(
        ConfigError, match=r"reaches a recall of 1.0 at 100 in 280.0 kB .* the best, binary, .* Ask for less recall"
    ):
        tune(LABELS, np.arange(20_000), QUERIES, Goal(recall=1.0, k=100, max_memory=20_000 * 14))
    types = ({"recall": "0.9"}, {"k": 2.5}, {"k": True}, {"max_memory": "2GB"}, {"budget": "10m"})
    for wrong in (*types, {"recall": 0}, {"recall": 1.2}, {"k": 0}, {"metric": "speed"}, {"budget": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Goal(**wrong)
    with pytest.raises(InputError, match="needs labels and queries, but there are 20000 and 0"):
        tune(LABELS, np.arange(20_000), QUERIES[:0])
    with pytest.raises(InputError, match=r"must have the shape \(L, D\), but have \(5,\)"):
        tune(LABELS[0, :5], np.arange(5), QUERIES)


def test_few_labels_are_searched_exactly() -> None:
    result = tune(LABELS[:200], np.arange(200), QUERIES, Goal(recall=1.0, metric="latency"))
    assert result.index.design.name == "exact"
    assert result.chosen.design == "exact"
    assert result.index.measured["design"] == "exact"


def test_designs_that_faiss_does_not_have_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    tried = [TriedDesign("IVF16,Flat"), TriedDesign("IVF16,NextYear"), TriedDesign("binary")]
    with caplog.at_level("INFO"):
        assert [candidate.design for candidate in installed(tried, 32)] == ["IVF16,Flat", "binary"]
    assert "IVF16,NextYear is left out" in caplog.text


def test_pareto() -> None:
    def point(recall: float, throughput: float, memory: float) -> OperatingPoint:
        return OperatingPoint("x", {}, 0, recall, 0.0, throughput, 0.0, 0.0, memory, 0.0)

    kept = [point(0.9, 100, 10), point(0.95, 50, 10), point(0.8, 90, 5)]
    beaten = [point(0.9, 90, 10), point(0.9, 100, 11), point(0.7, 50, 10)]
    assert pareto([*beaten, *kept]) == sorted(kept, key=lambda one: one.recall)


@pytest.mark.parametrize(
    "design",
    [*STORAGES, "HNSW16", "HNSW32,SQ8", *(c.design for c in candidates(20_000, 32))],
)
def test_memory_is_known_before_building(design: str) -> None:
    assert bytes_per_label(design, DIMENSION, 20_000) == pytest.approx(built_bytes(design), rel=0.05)
    assert factory_of("int8") == "SQ8"


@pytest.mark.slow
@pytest.mark.parametrize("design", ["NSG16", "PCA16,NSG24,SQ8"])
def test_the_most_memory_of_graphs_that_drop_links(design: str) -> None:
    most = bytes_per_label(design, DIMENSION, 20_000)
    assert most / 3 < built_bytes(design) < most


def built_bytes(design: str) -> float:
    """Bytes of a label in an index as built."""
    index = build_index(design, DIMENSION, device="cpu")
    index.build(LABELS, np.arange(20_000))
    engine = index.snapshot().held.engine
    assert isinstance(engine, FaissEngine)
    return len(faiss.serialize_index(engine.index)) / 20_000


@pytest.mark.slow
def test_devices_are_asked_exactly_first() -> None:
    """Devices of the processor stand for GPUs: exact search in both precisions is measured there, and that is enough."""
    stages: list[str] = []
    goal = Goal(recall=0.95, budget=30)
    result = tune(LABELS, np.arange(20_000), QUERIES, goal, report=stages.append, device=["cpu", "cpu"])
    assert stages == ["exact search"]
    assert [(point.design, point.rescore, point.device) for point in result.points] == [
        ("exact", 0, "cpu,cpu"),
        ("exact:bfloat16", 4, "cpu,cpu"),
    ]
    assert [point.bytes_per_label for point in result.points] == [4 * DIMENSION, 2 * DIMENSION]
    assert result.points[0].recall == 1.0
    assert result.index.devices == ("cpu", "cpu")
    assert result.index.measured["device"] == "cpu,cpu"
    half = Goal(recall=0.95, max_memory=20_000 * 3 * DIMENSION, budget=30)
    small = tune(LABELS, np.arange(20_000), QUERIES, half, device=["cpu", "cpu"])
    assert (small.chosen.design, small.index.rescore) == ("exact:bfloat16", 4)
    assert small.index.design.settings() == {"dtype": "bfloat16"}
    none = Goal(
        recall=0.95, max_memory=20_000 * DIMENSION, budget=30
    )  # half of what the copies take: the processor's turn
    assert tune(LABELS, np.arange(20_000), QUERIES, none, device=["cpu", "cpu"]).chosen.device == "cpu"
