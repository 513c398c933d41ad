"""How predictions are judged: what excluded pairs do to them, and that rejected pairs are wrong predictions like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from judged import rejecting
from scipy.sparse import csr_matrix
from worlds import tiny_config, wordnet_part

import xmc
from xmc.batch.evaluation import evaluate_files
from xmc.data.dataset import Dataset
from xmc.data.targets import Targets
from xmc.evaluation.evaluate import compare, evaluate
from xmc.evaluation.gather import gather, groups_of_labels, true_ids
from xmc.evaluation.judging import Ranking, excluded_predictions, most_excluded
from xmc.metrics import NO_PREDICTION, UNKNOWN_LABEL, usual_measures


def targets_of(excluded: list[tuple[int, int]], queries: int = 3, labels: int = 5) -> Targets:
    positives = csr_matrix((queries, labels), dtype=np.float32)
    return Targets.from_pairs(positives, None, np.array(excluded, np.int64).reshape(-1, 2))


def test_excluded_labels_hold_no_rank() -> None:
    targets = targets_of([(0, 1), (2, 4), (2, 0), (2, 0)])
    assert most_excluded(targets) == 2
    labels = np.array([[1, 0, 2], [1, 0, UNKNOWN_LABEL], [0, NO_PREDICTION, 3]])
    ids = labels + 10
    scores = np.array([[0.9, 0.5, 0.5], [0.9, 0.5, 0.5], [0.9, 0.0, 0.4]], np.float32)
    assert excluded_predictions(labels, targets).tolist() == [
        [True, False, False],
        [False, False, False],
        [True, False, False],
    ]
    ranking = Ranking.from_search(ids, labels, scores, targets, 2)
    assert ranking.labels.tolist() == [[0, 2], [1, UNKNOWN_LABEL], [3, NO_PREDICTION]]
    assert ranking.ids.tolist() == [[10, 12], [11, 8], [13, -1]]
    assert ranking.scores[2].tolist() == [np.float32(0.4), -np.inf]
    assert [ranking.place(2, label) for label in (3, 0)] == [1, None]


def test_without_a_filter_nothing_is_excluded() -> None:
    targets = targets_of([])
    assert most_excluded(targets) == 0
    assert not excluded_predictions(np.zeros((3, 4), np.int64), targets).any()
    assert excluded_predictions(np.zeros((3, 0), np.int64), targets_of([(0, 1)])).shape == (3, 0)


def test_the_rule_against_sets_of_pairs() -> None:
    random = np.random.default_rng(0)
    pairs = {(int(query), int(label)) for query, label in random.integers(0, 30, (120, 2))}
    labels = random.integers(-2, 30, (30, 12))
    expected = [[(query, label) in pairs for label in row] for query, row in enumerate(labels.tolist())]
    assert excluded_predictions(labels, targets_of(sorted(pairs), 30, 30)).tolist() == expected


@pytest.fixture(scope="module")
def plain() -> Dataset:
    return wordnet_part(1000)


@pytest.fixture(scope="module")
def judged(plain: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same data set where every query rejects four labels."""
    return rejecting(plain, tmp_path_factory.mktemp("judged") / "data")


@pytest.fixture(scope="module")
def run(plain: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("judged") / "run"
    xmc.train(plain, tiny_config(epochs=2), directory)
    return directory


def test_rejected_pairs_change_no_metric(plain: Dataset, judged: Dataset, run: Path) -> None:
    assert judged.split("test").rejected.nnz == 4 * 200
    retriever = xmc.Retriever.load(run)
    expected, values = evaluate(retriever, plain), evaluate(retriever, judged)
    assert values.values == expected.values
    assert "PSP@1" in values.values
    assert values.metrics.to_dict() == expected.metrics.to_dict()


def test_a_rejected_label_that_is_predicted_is_wrong(judged: Dataset) -> None:
    """All queries predict what they reject first, or what is true first."""
    targets, training = judged.targets("test"), judged.split("train")
    rejected = np.stack([row.indices[:3] for row in targets.rejected])
    scores = np.broadcast_to(np.array([3, 2, 1], np.float32), rejected.shape)
    values = compare(rejected.astype(np.int64), scores, judged, targets, training, usual_measures((1, 3), (3,))).values
    assert set(values.values()) == {0.0}
    rows = np.flatnonzero(np.diff(targets.truth.indptr))
    first = np.full((len(targets), 1), NO_PREDICTION, np.int64)
    first[rows, 0] = targets.truth.indices[targets.truth.indptr[rows]]
    values = compare(first, scores[:, :1], judged, targets, training, usual_measures((1,), (1,))).values
    assert values["P@1"] == pytest.approx(100 * len(rows) / len(targets))


def test_written_predictions_are_judged_alike(plain: Dataset, judged: Dataset, run: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    split = plain.split("test")
    labels, scores = retriever.predict(split.texts.to_pylist(), k=100 + most_excluded(plain.targets("test")))
    columns = {"uid": split.uids, "labels": labels.tolist(), "scores": scores.tolist()}
    pq.write_table(pa.table(columns), tmp_path / "predictions.parquet")
    written = evaluate_files(tmp_path / "predictions.parquet", judged)
    assert written.values == evaluate_files(tmp_path / "predictions.parquet", plain).values
    assert written.values == pytest.approx(evaluate(retriever, plain).values)
    assert written.filtered == most_excluded(plain.targets("test")) > 0


def test_rejected_pairs_change_no_candidate_of_calibration(plain: Dataset, judged: Dataset, run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    groups = [groups_of_labels(retriever, data, data.split("train")) for data in (plain, judged)]
    assert groups[0].tolist() == groups[1].tolist()
    assert len(set(groups[0].tolist())) > 2
    expected, found = (
        gather(retriever, data, data.split("test"), data.targets("test"), 50, groups[0], 0) for data in (plain, judged)
    )
    assert (found.hits == expected.hits).all()
    assert (found.positives == expected.positives).all()
    assert found.candidates.scores.tolist() == expected.candidates.scores.tolist()
    assert true_ids(retriever, judged, judged.targets("test")) == true_ids(retriever, plain, plain.targets("test"))
