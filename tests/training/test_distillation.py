"""Learning from a teacher, and embeddings that are served at several dimensions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import xmc as command
from scipy.sparse import csr_matrix
from scipy.special import softmax
from worlds import colours, tiny_config

import xmc
from xmc.config import DistillationConfig
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError, InputError
from xmc.evaluation.memory import memory_by_default
from xmc.search.stages import SearchRequest
from xmc.training.distributed import World
from xmc.training.supervision.teacher import taught_labels
from xmc.training.trainer import prepare_run


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    xmc.train(colours(), tiny_config(epochs=8), out)
    return out


def test_the_teachers_best_labels_are_weighted_by_its_scores(teacher: Path) -> None:
    data = colours()
    split = data.split("train")
    found = taught_labels(
        DistillationConfig(teacher=str(teacher), labels=3, temperature=0.2), split, data.labels
    ).toarray()
    retriever = xmc.Retriever.load(teacher)
    scores = retriever.embed_queries(split.texts.to_pylist()) @ retriever.embeddings.T
    for row in range(0, 400, 23):
        best = np.argsort(-scores[row])[:3]
        assert set(np.flatnonzero(found[row])) == set(best)
        np.testing.assert_allclose(found[row][best], softmax(scores[row][best] / 0.2), rtol=1e-4)


def test_labels_that_the_student_lacks_are_left_out(teacher: Path) -> None:
    data = colours()
    few = replace(data.labels, uids=data.labels.uids[:2], texts=data.labels.texts[:2])
    found = taught_labels(DistillationConfig(teacher=str(teacher), labels=4), data.split("train"), few)
    sums = found.toarray().sum(1)
    assert found.shape == (400, 2)
    assert set(np.round(sums, 5)) == {0.0, 1.0}


@pytest.mark.parametrize("negatives", ["all", "in-batch", "bank"])
def test_a_student_learns_from_its_teacher_alone(negatives: str, teacher: Path, tmp_path: Path) -> None:
    """Its own labels are wrong: only the teacher knows better."""
    data = colours()
    split, rng = data.split("train"), np.random.default_rng(0)
    wrong = [[int(label)] for label in rng.integers(0, 12, len(split))]
    confused = Dataset.from_lists(
        "confused",
        data.labels.texts.to_pylist(),
        {"train": (split.texts.to_pylist(), wrong)},
        label_uids=data.labels.uids.to_pylist(),
    )
    distillation = {"teacher": str(teacher), "labels": 6, "temperature": 0.1, "weight": 1.0}
    xmc.train(
        confused,
        tiny_config(epochs=8, negatives=negatives, **{"objective.distillation": distillation}),
        tmp_path / "run",
    )
    assert xmc.evaluate(xmc.Retriever.load(tmp_path / "run"), data).values["P@1"] >= 90
    xmc.train(confused, tiny_config(epochs=8), tmp_path / "alone")
    assert xmc.evaluate(xmc.Retriever.load(tmp_path / "alone"), data).values["P@1"] <= 75


def numbered() -> Dataset:
    """The world of colours with labels whose texts say nothing: a teacher knows only the labels that it was taught."""
    data = colours()
    splits = {}
    for name in ("train", "test"):
        split = data.split(name)
        lists = [row.tolist() for row in np.split(split.positives.indices, split.positives.indptr[1:-1])]
        splits[name] = (split.texts.to_pylist(), lists)
    return Dataset.from_lists("numbered", [f"no. {number}" for number in range(12)], splits)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two teachers, each trained with the pairs of one half of the labels: colours 0 to 5, and 6 to 11."""
    data, folder = numbered(), tmp_path_factory.mktemp("halves")
    for number in range(2):
        mine = np.arange(12) // 6 == number
        positives = csr_matrix(data.split("train").positives.multiply(mine))
        positives.eliminate_zeros()
        labelled = np.diff(positives.indptr) > 0
        half = data.with_evidence("train", positives=positives.astype(np.float32), labelled=labelled)
        xmc.train(half, tiny_config(epochs=8), folder / str(number))
    return [folder / "0", folder / "1"]


def pure(data: Dataset, split: str) -> list[np.ndarray]:
    """The queries of a split all of whose labels are in the first half, and those of the second."""
    positives = data.split(split).positives
    first = np.asarray(positives[:, :6].sum(1)).ravel() > 0
    second = np.asarray(positives[:, 6:].sum(1)).ravel() > 0
    return [np.flatnonzero(first & ~second), np.flatnonzero(second & ~first)]


def test_the_surest_cannot_be_told_by_one_label() -> None:
    with pytest.raises(ConfigError, match="set labels to 2 or more, or choose to all"):
        DistillationConfig(teacher=["a", "b"], choose="surest", labels=1)


def test_each_query_has_its_surest_teacher(halves: list[Path]) -> None:
    data = numbered()
    split = data.split("train")
    config = DistillationConfig(teacher=[str(run) for run in halves], choose="surest")
    found = taught_labels(config, split, data.labels)
    alone = [taught_labels(DistillationConfig(teacher=str(run)), split, data.labels) for run in halves]
    by = [[(found[row] != one[row]).nnz == 0 for row in range(len(split))] for one in alone]
    assert np.logical_or(*by).all()
    for number, rows in enumerate(pure(data, "train")):
        assert np.array(by[number])[rows].mean() > 0.8
    mean = taught_labels(config.model_copy(update={"choose": "all"}), split, data.labels)
    assert abs(mean - (alone[0] + alone[1]) / 2).max() < 1e-6
    np.testing.assert_allclose(np.asarray(found.sum(1)), 1, rtol=1e-5)


def test_a_student_of_two_halves_knows_both(halves: list[Path], tmp_path: Path) -> None:
    data = numbered()
    split = data.split("train")
    nothing = csr_matrix(split.positives.shape, dtype=np.float32)
    untold = data.with_evidence("train", positives=nothing, labelled=np.zeros(len(split), bool))
    taught = {"teacher": [str(run) for run in halves], "choose": "surest", "weight": 1.0}
    xmc.train(untold, tiny_config(epochs=8, **{"objective.distillation": taught}), tmp_path / "run")
    texts, truth = data.split("test").texts.to_pylist(), data.split("test").positives
    for number, rows in enumerate(pure(data, "test")):
        hits = {}
        for name in (*halves, tmp_path / "run"):
            best = xmc.Retriever.load(name).search([texts[row] for row in rows], 1)[0][:, 0]
            hits[name] = np.mean([truth[row, label] > 0 for row, label in zip(rows, best, strict=True)])
        assert hits[tmp_path / "run"] >= 0.95  # and the teacher of this half has 1
        assert hits[halves[number]] > hits[halves[1 - number]] + 0.5


def test_passages_of_a_document_have_labels_of_their_own(teacher: Path, tmp_path: Path) -> None:
    """The teacher judges each passage: a label of the document that it does not name there counts nowhere."""
    data = Dataset.from_lists(
        "documents",
        colours().labels.texts.to_pylist(),
        {"train": (["a red item | some blue item", "one green item | nothing but pink"], [[0, 2], [1, 7]])},
        label_uids=colours().labels.uids.to_pylist(),
    )
    taught = {"teacher": str(teacher), "labels": 1, "weight": 1.0}
    config = tiny_config(data={"bags": {"separator": " | "}}, epochs=2, **{"objective.distillation": taught})
    run = prepare_run(data, config, torch.device("cpu"), World())
    known = run.data.known
    assert known.taught is not None
    assert known.taught.indices.tolist() == [0, 2, 1, 7]
    known.train_on(np.array([True, False, False, True, True, False, False, True]))
    chosen = known.batch(0, np.arange(4))
    assert chosen.taught is not None
    assert chosen.taught.labels[chosen.taught.pull > 0].tolist() == [0, 2, 1, 7]
    known.train_on(np.array([False, True, True, False, False, True, True, False]))  # the other passage each
    other = known.batch(0, np.arange(4))
    assert other.taught is not None
    assert other.taught.labels[other.taught.pull > 0].tolist() == [0, 2, 1, 7]
    nowhere = (other.taught.pull == 0) & (other.taught.push == 0)
    assert other.taught.labels[nowhere].tolist() == [2, 0, 7, 1]
    xmc.train(data, config, tmp_path / "run")
    assert xmc.Retriever.load(tmp_path / "run").predict(["a red thing"], 1)[0].tolist() == [["RED"]]


def test_a_teacher_that_cannot_teach_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"distillation\.teacher must name a finished run"):
        xmc.train(
            colours(), tiny_config(**{"objective.distillation.teacher": str(tmp_path / "none")}), tmp_path / "run"
        )
    others = colours([f"{name}ish" for name in "abcdefghijkl"])
    with pytest.raises(ConfigError, match="shares no label uid with the data set"):
        xmc.train(others, tiny_config(**{"objective.distillation.teacher": str(teacher)}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"distillation\.weight must be a share in \(0, 1\], but is 0"):
        tiny_config(**{"objective.distillation.teacher": "x", "objective.distillation.weight": 0.0})


@pytest.mark.parametrize("label_vectors", ["none", "residual", "prototypes"])
def test_one_run_is_served_at_several_dimensions(label_vectors: str, tmp_path: Path) -> None:
    data = colours()
    prototypes = {"kind": "prototypes", "clusters": 4, "heads": 4, "feedforward": 32}
    config = tiny_config(
        label_vectors=prototypes if label_vectors == "prototypes" else label_vectors,
        epochs=10,
        **{"objective.nested_dimensions": [4, 8], "optimizer.learning_rate.prototypes": 0.01},
    )
    xmc.train(data, config, tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    for dimension, expected in ((4, 80), (8, 95), (32, 95)):
        smaller = retriever.cut(dimension)
        assert smaller.embeddings.shape == (12, dimension)
        np.testing.assert_allclose(np.linalg.norm(smaller.embeddings, axis=1), 1, rtol=1e-5)
        assert xmc.evaluate(smaller, data).values["P@1"] >= expected
        smaller.add_labels(["turquoise"], ["new"])
        smaller.save(tmp_path / str(dimension))
        again = xmc.Retriever.load(tmp_path / str(dimension))
        assert again.model.dimension == dimension
        np.testing.assert_array_equal(again.predict(["a red item"], 3)[1], smaller.predict(["a red item"], 3)[1])
    assert len(retriever) == 12
    with pytest.raises(InputError, match="Embeddings have 32 dimensions; they cannot be cut to 33"):
        retriever.cut(33)
    for dimension in ("8", 2.5, True):
        with pytest.raises(InputError, match="dimension must be a whole number"):
            retriever.cut(dimension)  # type: ignore[arg-type]


def test_nested_training_makes_small_dimensions_better(tmp_path: Path) -> None:
    data, found = colours(), {}
    for name, nested in (("nested", [3]), ("plain", [])):
        xmc.train(data, tiny_config(**{"objective.nested_dimensions": nested}, epochs=10), tmp_path / name)
        found[name] = xmc.evaluate(xmc.Retriever.load(tmp_path / name).cut(3), data).values["P@1"]
    assert found["nested"] > found["plain"] + 8


@pytest.mark.slow
def test_the_command_line_cuts_too(teacher: Path, tmp_path: Path) -> None:
    done = command("index", teacher, "exact", "--dimension", 8, "--out", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    assert xmc.Retriever.load(tmp_path / "small").embeddings.shape == (12, 8)
    done = command("index", teacher, "--dimension", 8)
    assert done.returncode == 2
    assert "--dimension changes the model; name another directory with --out" in done.stderr


def test_a_teacher_answers_with_its_stages(teacher: Path, tmp_path: Path) -> None:
    """A memory votes, but not a remembered query for itself; what is taught is what a search gives."""
    data = colours()
    split = data.split("train")
    retriever = xmc.Retriever.load(teacher)
    memory_by_default(retriever, data, "own")
    retriever.save(tmp_path / "run")
    config = DistillationConfig(teacher=str(tmp_path / "run"), labels=3, temperature=0.2)
    found = taught_labels(config, split, data.labels).toarray()
    request = SearchRequest(3, leave_one_out=True)
    texts = split.texts.to_pylist()
    ids, scores = retriever.corridor(retriever.corridor.begin(request, retriever.labels, texts)).ranked()
    np.testing.assert_allclose(np.take_along_axis(found, ids, 1), softmax(scores / 0.2, axis=1), rtol=1e-4)
    assert (retriever.search(texts, 3)[1] != scores).any()
