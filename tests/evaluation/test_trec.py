"""Run and qrels files, judged by the tools that read them: trec_eval and ranx find what `xmc evaluate` finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import unlisted

from xmc.data.dataset import Dataset
from xmc.errors import DataError
from xmc.evaluation.evaluate import compare
from xmc.evaluation.predicted import Predicted
from xmc.evaluation.trec import write_trec
from xmc.metrics import Metrics, measures_of

MEASURES = measures_of("p,ndcg,recall,mrr,map,rprec", [1, 5, 10])
TREC_EVAL = {"P@{}": "P_{}", "nDCG@{}": "ndcg_cut_{}", "R@{}": "recall_{}", "MAP@{}": "map_cut_{}"}


@pytest.fixture
def data() -> Dataset:
    """Labels and queries whose uids have blanks, percent signs and letters of all kinds; filtered and rejected pairs."""
    random = np.random.default_rng(0)
    positives = [sorted(random.choice(30, random.integers(1, 8), replace=False).tolist()) for _ in range(60)]
    rejected = [[label for label in range(3) if label not in row] for row in positives]
    return Dataset.from_lists(
        "made up",
        [f"label {label}" for label in range(30)],
        {"test": ([f"text {query}" for query in range(60)], positives)},
        label_uids=[f"la bel\t{label}%20 ä\u00a0" for label in range(30)],
        query_uids={"test": [f"q uery {query}" for query in range(60)]},
        rejected={"test": rejected},
        filters={
            "test": np.array([[query, positives[query][0]] for query in range(0, 60, 7) if len(positives[query]) > 1])
        },
    )


@pytest.fixture
def predicted(data: Dataset) -> Predicted:
    """Many equal scores, labels that the data set lacks, and lists of different lengths."""
    random = np.random.default_rng(1)
    places = np.argsort(random.random((60, 33)), axis=1)[:, :25]
    places[random.random(places.shape) < 0.1] = -1
    uids = pa.array([*data.labels.uids.to_pylist(), "un known 1", "unknown 2", "unknown 3"])
    labels = np.where(places < 0, -1, np.where(places < 30, places, -2))
    scores = random.choice(np.array([0.25, 0.5, 0.5000001, -1.0], np.float32), places.shape)
    return Predicted(uids, places, labels, scores)


def evaluated(data: Dataset, predicted: Predicted) -> Metrics:
    return compare(predicted.labels, predicted.scores, data, data.targets("test"), None, MEASURES)


def queries_of(metrics: Metrics) -> dict[str, list[float]]:
    return {name: values.of_queries.tolist() for name, values in metrics.query_values().items()}


def test_trec_eval_finds_the_same(data: Dataset, predicted: Predicted, tmp_path: Path) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pip install pytrec-eval-terrier")
    run_file, qrels_file = write_trec(predicted, data, "test", tmp_path)
    with run_file.open() as file:
        run = pytrec_eval.parse_run(file)
    with qrels_file.open() as file:
        qrels = pytrec_eval.parse_qrel(file)
    assert list(run) == [f"q%20uery%20{query}" for query in range(60)]
    assert {grade for row in qrels.values() for grade in row.values()} == {0, 1}
    measures = {"P.1,5,10", "ndcg_cut.1,5,10", "recall.1,5,10", "map_cut.1,5,10", "recip_rank", "Rprec"}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    expected = queries_of(evaluated(data, predicted))
    for row, query in enumerate(run):
        for name, trec_name in TREC_EVAL.items():
            for k in (1, 5, 10):
                value = 100 * found[query][trec_name.format(k)]
                assert value == pytest.approx(expected[name.format(k)][row]), (query, name, k)
        assert 100 * found[query]["Rprec"] == pytest.approx(expected["RPrec"][row])
        if expected["MRR@10"][row]:
            assert 100 * found[query]["recip_rank"] == pytest.approx(expected["MRR@10"][row])


@pytest.mark.slow
def test_ranx_finds_the_same(data: Dataset, predicted: Predicted, tmp_path: Path) -> None:
    """Slow because ranx compiles for half a minute."""
    ranx = pytest.importorskip("ranx", reason="pip install ranx")
    run_file, qrels_file = write_trec(predicted, data, "test", tmp_path)
    names = {"P@{}": "precision@{}", "nDCG@{}": "ndcg@{}", "R@{}": "recall@{}", "MRR@{}": "mrr@{}"}
    wanted = {name.format(k): ranx_name.format(k) for name, ranx_name in names.items() for k in (1, 5, 10)}
    wanted["RPrec"] = "r-precision"
    qrels = ranx.Qrels.from_file(str(qrels_file), kind="trec")
    run = ranx.Run.from_file(str(run_file), kind="trec")
    found = ranx.evaluate(qrels, run, list(wanted.values()), make_comparable=True)
    values = evaluated(data, predicted).values
    for name, ranx_name in wanted.items():
        assert 100 * found[ranx_name] == pytest.approx(values[name]), name


def test_lines(data: Dataset, tmp_path: Path) -> None:
    uids = pa.array(["red", "new one", "blue%"])
    small = Dataset.from_lists("small", ["r", "b"], {"test": (["x", "y"], [[0], [0, 1]])}, label_uids=["red", "blue%"])
    predicted = Predicted(
        uids,
        np.array([[2, 1, 0], [0, -1, -1]]),
        np.array([[1, -2, 0], [0, -1, -1]]),
        np.array([[0.5, 0.75, 0.5], [0.25, -np.inf, -np.inf]], np.float32),
    )
    run, qrels = write_trec(predicted, small, "test", tmp_path / "folder")
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert run.read_text().splitlines() == [
        "0 Q0 new%20one 1 0.75 xmc",
        "0 Q0 red 2 0.5 xmc",  # equal scores: the label that stands first in the data set
        f"0 Q0 blue%25 3 {below!r} xmc",
        "1 Q0 red 1 0.25 xmc",
    ]
    assert qrels.read_text().splitlines() == ["0 0 red 1", "1 0 red 1", "1 0 blue%25 1"]
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == ["qrels.trec", "run.trec"]


def test_uids_that_cannot_be_written(tmp_path: Path) -> None:
    predicted = Predicted(
        pa.array(["a"]), np.zeros((2, 1), np.int64), np.zeros((2, 1), np.int64), np.ones((2, 1), np.float32)
    )
    directory = tmp_path / "data"
    Dataset.from_lists("d", ["a"], {"test": (["x", "y"], [[0], [0]])}).save(directory)
    queries = pq.read_table(unlisted(directory) / "queries-test.parquet")
    for uids, message in (
        (["", "x"], "uid of a query of the split 'test' is empty"),
        (["x", "x"], "a query uid twice"),
    ):
        pq.write_table(queries.set_column(0, "uid", pa.array(uids)), directory / "queries-test.parquet")
        with pytest.raises(DataError, match=message):
            write_trec(predicted, Dataset.load(directory), "test", tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
