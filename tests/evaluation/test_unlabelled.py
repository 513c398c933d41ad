"""Queries that are not labelled are in no metric: neither of a retriever nor of written predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.batch.evaluation import evaluate_files
from xmc.batch.options import JobOptions
from xmc.batch.predict import predict_files
from xmc.data.dataset import Dataset
from xmc.errors import DataError
from xmc.evaluation.trec import write_trec
from xmc.report.task import Task


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that finds most colours."""
    place = tmp_path_factory.mktemp("run") / "run"
    xmc.train(colours(), tiny_config(epochs=2), place)
    return place


def partly() -> tuple[Dataset, np.ndarray]:
    """Colours without the labels of two thirds of the test queries, and the rows of the others."""
    base, rows = colours(), np.arange(0, 100, 3)
    labelled = np.isin(np.arange(100), rows)
    known = base.split("test").positives.multiply(labelled[:, None]).tocsr().astype(np.float32)
    known.eliminate_zeros()
    return base.with_evidence("test", positives=known, labelled=labelled), rows


def test_metrics_are_those_of_the_labelled_queries_alone(run: Path, tmp_path: Path) -> None:
    data, rows = partly()
    base = colours()
    split = base.split("test").take(rows)
    lists = [split.positives[row].indices.tolist() for row in range(len(split))]
    train = base.split("train")
    given = [train.positives[row].indices.tolist() for row in range(len(train))]
    alone = Dataset.from_lists(
        "alone",
        base.labels.texts.to_pylist(),
        {"train": (train.texts.to_pylist(), given), "test": (split.texts.to_pylist(), lists)},
        label_uids=base.labels.uids.to_pylist(),
    )
    wanted = xmc.evaluate(run, alone)
    found = xmc.evaluate(run, data, keep_predictions=True)
    assert found.values == wanted.values
    assert (found.queries, found.uids.to_pylist()) == (len(rows), [str(row) for row in rows])
    assert found.predicted is not None
    assert len(found.predicted.labels) == 100
    write_trec(found.predicted, data, "test", tmp_path / "trec")
    judged = {line.split()[0] for line in (tmp_path / "trec" / "run.trec").read_text().splitlines()}
    assert judged == {str(row) for row in rows}

    queries = pa.table({"uid": data.split("test").uids, "text": data.split("test").texts})
    pq.write_table(queries, tmp_path / "in.parquet")
    predict_files(run, tmp_path / "in.parquet", tmp_path / "out", 10, options=JobOptions())
    written = evaluate_files(tmp_path / "out", data, "test", k=[1, 3], keep_predictions=True)
    assert (written.queries, written.missing, written.unknown) == (len(rows), 0, 0)
    assert written["P@3"] == pytest.approx(wanted["P@3"])
    assert written.predicted is not None
    assert len(written.predicted.labels) == 100
    assert len(Task.from_split(data, "test").queries) == len(rows)


def test_a_split_without_a_labelled_query_judges_nothing(run: Path) -> None:
    base = colours()
    positives = base.split("test").positives * 0
    positives.eliminate_zeros()
    nothing = base.with_evidence("test", positives=positives, labelled=np.zeros(100, bool))
    with pytest.raises(DataError, match="None of the 100 queries is labelled"):
        xmc.evaluate(run, nothing)
