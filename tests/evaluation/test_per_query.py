"""Metrics of each query in files, two runs compared query by query, and metrics of runs and of written predictions by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import tiny_config, wordnet_part

import xmc
from xmc.batch.evaluation import evaluate_files
from xmc.data.dataset import Dataset
from xmc.errors import DataError, InputError
from xmc.evaluation.evaluated import Evaluation
from xmc.evaluation.judging import most_excluded
from xmc.evaluation.per_query import QueryMetrics

METRICS = "p,ndcg,psp,recall,mrr,map,f1,rprec,gap"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return wordnet_part(1000)


@pytest.fixture(scope="module")
def retrievers(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[xmc.Retriever]:
    """A run that is trained, and one that hardly is."""
    directory = tmp_path_factory.mktemp("runs")
    for epochs in (3, 1):
        xmc.train(data, tiny_config(epochs=epochs), directory / str(epochs))
    return [xmc.Retriever.load(directory / str(epochs)) for epochs in (3, 1)]


@pytest.fixture(scope="module")
def evaluations(data: Dataset, retrievers: list[xmc.Retriever]) -> list[Evaluation]:
    return [xmc.evaluate(retriever, data, k=[1, 5], metrics=METRICS) for retriever in retrievers]


@pytest.fixture(scope="module")
def predictions(data: Dataset, retrievers: list[xmc.Retriever], tmp_path_factory: pytest.TempPathFactory) -> Path:
    split = data.split("test")
    labels, scores = retrievers[0].predict(split.texts.to_pylist(), k=30 + most_excluded(data.targets("test")))
    path = tmp_path_factory.mktemp("written") / "predictions.parquet"
    pq.write_table(pa.table({"uid": split.uids, "labels": labels.tolist(), "scores": scores.tolist()}), path)
    return path


def test_results_have_the_names_that_were_asked_for(data: Dataset, evaluations: list[Evaluation]) -> None:
    found = evaluations[0]
    assert list(found.values) == [
        *("P@1", "P@5", "nDCG@1", "nDCG@5", "PSP@1", "PSP@5", "R@1", "R@5"),
        *("MRR@1", "MRR@5", "MAP@1", "MAP@5", "F1@1", "F1@5", "RPrec", "GAP@20"),
    ]
    assert found["ndcg@5"] == found.values["nDCG@5"] > 0
    assert found["MRR@1"] == found["P@1"]
    with pytest.raises(InputError, match="no 'P@3' among the metrics; there are P@1, P@5"):
        found["P@3"]


def test_the_search_is_as_deep_as_the_metrics_ask_for(data: Dataset, retrievers: list[xmc.Retriever]) -> None:
    """R at 500 is of 500 labels, R-precision of as many as the query with most labels has."""
    deep = xmc.evaluate(retrievers[0], data, metrics="recall,rprec", k=500, keep_predictions=True)
    assert deep.predicted is not None
    assert deep.predicted.labels.shape[1] == 500 + most_excluded(data.targets("test"))
    assert deep["R@500"] > xmc.evaluate(retrievers[0], data)["R@100"]
    alone = xmc.evaluate(retrievers[0], data, metrics="rprec", keep_predictions=True)
    assert alone.predicted is not None
    most = np.diff(data.targets("test").truth.indptr).max()
    assert alone.predicted.labels.shape[1] == most + most_excluded(data.targets("test"))
    assert alone["RPrec"] == pytest.approx(deep["RPrec"])


def test_written_predictions_know_the_same_metrics(
    data: Dataset, evaluations: list[Evaluation], predictions: Path
) -> None:
    written = evaluate_files(predictions, data, k=[1, 5], metrics=METRICS)
    assert written.values == pytest.approx(evaluations[0].values, rel=1e-12)
    with pytest.raises(InputError, match=r"R@500 looks at 500 labels .* has \d+; predict with --k 5\d\d"):
        evaluate_files(predictions, data, metrics="p@1,recall@500")


def test_a_row_a_query_whose_mean_is_the_metric(evaluations: list[Evaluation], data: Dataset, tmp_path: Path) -> None:
    of_queries = QueryMetrics.from_evaluated("run", evaluations[0])
    of_queries.save(tmp_path / "queries.parquet")
    table = pq.read_table(tmp_path / "queries.parquet")
    assert table.column_names == ["uid", *evaluations[0].values]
    assert table["uid"].to_pylist() == data.split("test").uids.to_pylist()
    for name, value in evaluations[0].values.items():
        assert np.mean(table[name]) == pytest.approx(value, rel=1e-12)
    again = QueryMetrics.load(tmp_path / "queries.parquet")
    assert again.means == pytest.approx(evaluations[0].values)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["queries.parquet"]


def test_two_runs_are_compared_query_by_query(evaluations: list[Evaluation], tmp_path: Path) -> None:
    first, second = (QueryMetrics.from_evaluated(name, found) for name, found in zip("ab", evaluations, strict=True))
    paired = first.against(second)
    assert list(paired) == list(evaluations[0].values)
    better = paired["nDCG@5"]
    assert better.difference == pytest.approx(evaluations[0]["nDCG@5"] - evaluations[1]["nDCG@5"])
    assert 0 < better.low < better.difference < better.high
    assert better.p_value < 0.01
    assert first.against(first)["nDCG@5"].p_value == 1
    # A file of the same queries in another order, with fewer metrics.
    shuffled = second.table().take(np.random.default_rng(0).permutation(len(second))).select(["nDCG@5", "uid"])
    pq.write_table(shuffled, tmp_path / "other.parquet")
    of_file = first.against(QueryMetrics.load(tmp_path / "other.parquet"))
    assert list(of_file) == ["nDCG@5"]
    assert of_file["nDCG@5"].difference == pytest.approx(better.difference)
    assert of_file["nDCG@5"].p_value == better.p_value


def test_what_cannot_be_compared(evaluations: list[Evaluation], tmp_path: Path) -> None:
    of_queries = QueryMetrics.from_evaluated("run", evaluations[0])
    table = of_queries.table()

    def against(other: pa.Table) -> None:
        pq.write_table(other, tmp_path / "other.parquet")
        of_queries.against(QueryMetrics.load(tmp_path / "other.parquet"))

    with pytest.raises(
        DataError, match=r"run has 200 queries and .*other.parquet 150, of them 150 in both; compare on"
    ):
        against(table.slice(50))
    with pytest.raises(DataError, match="has the same query uid twice"):
        against(pa.concat_tables([table.slice(0, 199), table.slice(0, 1)]))
    with pytest.raises(DataError, match=r"share no metric: P@1, .* against X@1; choose the same --metrics"):
        against(table.select(["uid", "P@1"]).rename_columns(["uid", "X@1"]))
    with pytest.raises(DataError, match=r"row 3: P@1 is not a finite number"):
        against(table.slice(0, 4).set_column(1, "P@1", [[1.0, 2.0, 3.0, None]]))
    with pytest.raises(DataError, match="cannot be read as metrics of queries"):
        against(pa.table({"name": ["a"], "P@1": [1.0]}))
    with pytest.raises(DataError, match="has no metric of any query; `xmc evaluate --per-query` writes"):
        against(table.select(["uid"]))
    with pytest.raises(InputError, match=r"name the file queries.parquet, not queries.csv"):
        of_queries.save(tmp_path / "queries.csv")
