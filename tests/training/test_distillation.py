"""Learning from a teacher, and embeddings that are served at several dimensions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import xmc as command
from scipy.special import softmax
from worlds import colours, tiny_config

import xmc
from xmc.config import DistillationConfig
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError, InputError
from xmc.evaluation.memory import memory_by_default
from xmc.search.stages import SearchRequest
from xmc.training.supervision.teacher import taught_labels


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
