"""Data sets with soft labels: they say what training with the estimator would take up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import xmc as command
from scipy.sparse import csr_matrix
from worlds import colours, tiny_config

import xmc
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.evidence import LabelBags, Votes
from xmc.errors import ConfigError, DataError
from xmc.training.supervision.label_changes import changes_by_frequency, channels_of_sources
from xmc.training.supervision.pair_entries import PairEntries
from xmc.training.supervision.relabel import relabel


def planted() -> tuple[Dataset, np.ndarray]:
    """Colours with a wrong label for every third query, and every fifth pair missing; which given pairs are wrong."""
    data, rng = colours(), np.random.default_rng(1)
    true = data.split("train").positives.toarray() > 0
    given = true & (rng.random(true.shape) > 0.2)
    wrong = np.zeros_like(true)
    wrong[np.arange(0, 400, 3), rng.integers(0, 12, 134)] = True
    wrong &= ~true
    positives = csr_matrix((given | wrong).astype(np.float32))
    rejected = csr_matrix(([True], ([1], [int(np.flatnonzero(~(true | wrong)[1])[0])])), shape=true.shape)
    return data.with_evidence("train", positives=positives, rejected=rejected), wrong


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("relabel") / "run"
    xmc.train(planted()[0], tiny_config(calibration=0.3, seed=2), out)
    return out


def config_of(run: Path, **supervision: Any) -> TrainConfig:
    changes = {f"supervision.{key}": value for key, value in {"estimator": "posterior", **supervision}.items()}
    return xmc.Retriever.load(run).config.changed(**changes)


@pytest.mark.parametrize(
    "told", [{"wrong": 0.25}, {"wrong": "estimate", "recorded": 0.8, "accept": 0.3}, {"positives": 2.5}]
)
def test_the_written_data_set_has_the_entries_of_the_estimate(told: dict[str, Any], run: Path, tmp_path: Path) -> None:
    data, _ = planted()
    config = config_of(run, **told)
    done = relabel(xmc.Retriever.load(run), data, config)
    done.dataset.save(tmp_path / "soft")
    written = Dataset.load(tmp_path / "soft")
    assert written.properties["relabelled"]["from"] == data.fingerprint
    again = PairEntries.of(written.targets("train"), True, config.supervision.rejected_weight)
    frozen = done.entries
    np.testing.assert_array_equal(again.keys, frozen.keys)
    np.testing.assert_array_equal(again.pull, frozen.pull)
    doubtful = (frozen.pull == 0) & (frozen.push > 0) & (frozen.push < 1)
    np.testing.assert_array_equal(again.push, np.where(doubtful, 0, frozen.push))
    assert (again.pull[again.pull > 0] < 1).any()
    assert written.split("test").positives.nnz == data.split("test").positives.nnz
    assert written.split("train").rejected.nnz == 1


def test_wrong_pairs_are_left_out_and_the_table_counts_them(run: Path) -> None:
    data, wrong = planted()
    done = relabel(xmc.Retriever.load(run), data, config_of(run, wrong=0.25))
    assert "120 queries that the run kept aside" in done.seen
    before, after = data.split("train").positives, done.dataset.split("train").positives
    left = (before.toarray() > 0) & (after.toarray() == 0)
    assert wrong[left].mean() > 2 * wrong[before.toarray() > 0].mean()
    rows = changes_by_frequency(done)
    assert sum(row.given for row in rows) == before.nnz
    assert sum(row.left_out for row in rows) == left.sum()
    assert sum(row.accepted for row in rows) == 0
    assert channels_of_sources(done) == []


@pytest.mark.parametrize("labels", [3, 7])
def test_of_few_labels_each_has_a_row_of_the_table(labels: int, run: Path) -> None:
    names = colours().labels.uids.to_pylist()[: labels + 1]
    texts = [f"the {names[row % labels].lower()} thing {row}" for row in range(120)]
    few = Dataset.from_lists("few", names, {"train": (texts, [[row % labels] for row in range(120)])}, label_uids=names)
    done = relabel(xmc.Retriever.load(run), few, config_of(run, wrong=0.2))
    assert "was not trained on this data set" in done.seen
    rows = changes_by_frequency(done)
    assert len(rows) == labels + 1
    assert rows[0].given == 0
    assert rows[0].posterior is None  # which JSON has a word for, as it has none for NaN
    assert sum(row.given for row in rows) == 120
    assert all(row.posterior is not None and 0 < row.posterior <= 1 for row in rows[1:])


def test_evidence_is_in_the_labels(run: Path) -> None:
    data = colours()
    true = data.split("train").positives.toarray() > 0
    queries, labels = np.nonzero(np.ones_like(true))
    right = np.random.default_rng(0).random(len(queries)) < 0.9
    values = np.where(true.ravel() == right, 1.0, -1.0)
    votes = Votes.from_arrays(queries, labels, ["rule"] * len(queries), values)
    nothing = csr_matrix(true.shape, dtype=np.float32)
    voted = data.with_evidence("train", positives=nothing, labelled=np.zeros(400, bool), votes=votes)
    done = relabel(xmc.Retriever.load(run), voted, config_of(run))
    assert "called 'colours' too, but has another content" in done.seen
    (source,) = channels_of_sources(done)
    assert source.name == "rule"
    assert source.votes == len(votes)
    assert source.accuracy == pytest.approx(0.9, abs=0.06)
    soft = done.dataset.split("train").positives.toarray()
    assert ((soft > 0) == (values.reshape(true.shape) > 0)).mean() > 0.98  # there is nothing else to go by
    assert done.dataset.evidence("train") == {}
    assert done.dataset.labelled("train") is None or done.dataset.labelled("train")[(soft > 0).any(1)].all()
    bags = LabelBags.from_lists(
        [[row] for row in range(400)], [np.flatnonzero(t).tolist() for t in true], [[1] * t.sum() for t in true]
    )
    counted = data.with_evidence("train", positives=nothing, labelled=np.zeros(400, bool), label_bags=bags)
    exact = relabel(xmc.Retriever.load(run), counted, config_of(run)).dataset.split("train").positives
    assert ((exact.toarray() > 0) == true).all()


def test_votes_that_came_later_do_not_make_all_pairs_unseen(run: Path) -> None:
    data, _ = planted()
    voted = data.with_evidence("train", votes=Votes.from_arrays([0, 1], [1, 2], ["rule"] * 2, [1.0, 1.0]))
    assert "120 queries" in relabel(xmc.Retriever.load(run), voted, config_of(run, wrong=0.2)).seen


def test_what_cannot_be_estimated_is_refused(run: Path, tmp_path: Path) -> None:
    data, retriever = planted()[0], xmc.Retriever.load(run)
    with pytest.raises(ConfigError, match="Nothing is to be estimated"):
        relabel(retriever, data, config_of(run))
    with pytest.raises(ConfigError, match="needs queries whose labels are all known"):
        relabel(retriever, data, config_of(run, recorded="estimate"))
    others = Dataset.from_lists("others", ["mauve"], {"train": (["a mauve thing"], [[0]])})
    with pytest.raises(DataError, match="1 labels of 'others' are not in the run"):
        relabel(retriever, with_many(others), config_of(run, wrong=0.2))
    with pytest.raises(DataError, match="at least 20 are needed"):
        relabel(retriever, colours().with_evidence("train", positives=few(data)), config_of(run, wrong=0.2))


def with_many(data: Dataset) -> Dataset:
    texts = [f"{data.split('train').texts[0].as_py()} {number}" for number in range(40)]
    return Dataset.from_lists("others", data.labels.texts.to_pylist(), {"train": (texts, [[0]] * 40)})


def few(data: Dataset) -> csr_matrix:
    return csr_matrix(([np.float32(1)], ([0], [0])), shape=data.split("train").positives.shape)


@pytest.mark.slow
def test_the_command_writes_what_training_reads(run: Path, tmp_path: Path) -> None:
    planted()[0].save(tmp_path / "data")
    done = command("relabel", run, tmp_path / "data", "--out", tmp_path / "soft", "--set", "supervision.wrong=0.25")
    assert done.returncode == 0, done.stderr
    assert "mean posterior" in done.stdout
    assert "120 queries that the run kept aside count as unseen" in done.stdout
    soft = Dataset.load(tmp_path / "soft")
    xmc.train(soft, tiny_config(epochs=6, **{"objective.relevance_weights": True}), tmp_path / "again")
    xmc.train(planted()[0], tiny_config(epochs=6), tmp_path / "plain")
    clean = colours()
    again, plain = (xmc.evaluate(xmc.Retriever.load(tmp_path / name), clean)["P@1"] for name in ("again", "plain"))
    assert again >= plain - 1
    done = command("relabel", run, tmp_path / "data", "--out", tmp_path / "soft", "--set", "supervision.wrong=0.25")
    assert done.returncode == 2
    assert "already holds the data set" in done.stderr
