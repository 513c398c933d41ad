"""One member of each family, each in one file outside of the package, serves a run from its data to a job."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from families import toys_registered
from processes import environment
from worlds import colours

import xmc
from xmc.batch import predict_files
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import READERS, open_source
from xmc.encoders.registry import ENCODERS
from xmc.errors import ConfigError
from xmc.indexes.designs import DESIGNS
from xmc.kernels.losses import LOSSES
from xmc.search.stages import STAGES
from xmc.training.estimate import estimate
from xmc.training.negatives import NEGATIVES

QUERIES = ["item 7 red and blue", "a pink item", "yellow"]
CONFIG = {
    "encoder": {"kind": "toy-words", "dimension": 24},
    "objective": {"loss": {"kind": "toy_squares", "weight": 3.0}},
    "negatives": [{"kind": "toy-turns", "count": 5}],
    "index": "toy-matrix",
    "epochs": 8,
    "batch_size": 32,
}
TOYS = ("toy_encoder", "toy_index", "toy_loss", "toy_negatives", "toy_reader", "toy_stage")
IMPORT = f"from toys import {', '.join(TOYS)}\n"
ANSWER = """
import sys, json, xmc
retriever = xmc.Retriever.load(sys.argv[1])
labels, scores = retriever.predict(json.loads(sys.argv[2]), k=3)
print(json.dumps([labels.tolist(), scores.tolist()]))
"""


@pytest.fixture(scope="module", autouse=True)
def toys() -> Iterator[SimpleNamespace]:
    """The modules of tests/helpers/toys, imported, and forgotten after this file's tests: others count members."""
    with toys_registered(*TOYS) as modules:
        yield modules


@pytest.fixture(scope="module")
def data(toys: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The world of colours, written as files of the toy layout and read again."""
    directory, world = tmp_path_factory.mktemp("toy") / "colours", colours()
    directory.mkdir()
    names = world.labels.texts.to_pylist()
    (directory / "labels.toy").write_text("\n".join(names) + "\n", encoding="utf-8")
    for name in ("train", "test"):
        split = world.split(name)
        lines = [
            f"{text} => {', '.join(names[label] for label in split.positives[row].indices)}"
            for row, text in enumerate(split.texts.to_pylist())
        ]
        (directory / f"{name}.toy").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return convert(open_source(directory), directory.parent / "converted").dataset


@pytest.fixture(scope="module")
def run(data: Dataset, toys: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("toy-run") / "run"
    xmc.train(data, xmc.TrainConfig.from_mapping(CONFIG), directory)
    retriever = xmc.Retriever.load(directory)
    retriever.use_stages([toys.toy_stage.ToyGap(gap=0.5)])
    retriever.save(directory, overwrite=True)
    return directory


def test_all_six_are_registered(toys: SimpleNamespace) -> None:
    assert ENCODERS["toy-words"] is toys.toy_encoder.ToyWords
    assert LOSSES["toy_squares"].function is toys.toy_loss.toy_squares
    assert NEGATIVES["toy-turns"] is toys.toy_negatives.ToyTurns
    assert DESIGNS["toy-matrix"] is toys.toy_index.ToyMatrixDesign
    assert READERS["toy-lines"] is toys.toy_reader.ToyLinesSource
    assert STAGES["toy-gap"] is toys.toy_stage.ToyGap


def test_the_reader_gives_the_same_data(data: Dataset) -> None:
    world = colours()
    assert data.labels.uids.to_pylist() == world.labels.uids.to_pylist()
    for name in ("train", "test"):
        assert data.split(name).texts.to_pylist() == world.split(name).texts.to_pylist()
        assert (data.split(name).positives != world.split(name).positives).nnz == 0


def test_what_was_trained_is_what_was_asked_for(run: Path, data: Dataset, toys: SimpleNamespace) -> None:
    retriever = xmc.Retriever.load(run)
    assert isinstance(retriever.model.query_encoder, toys.toy_encoder.ToyWords)
    assert isinstance(retriever.index.design, toys.toy_index.ToyMatrixDesign)
    assert retriever.config.to_mapping()["negatives"] == [{"kind": "toy-turns", "count": 5}]
    assert xmc.evaluate(retriever, data).values["P@1"] > 95
    assert retriever.predict(["item red and blue"], k=2)[0][0].tolist() in (["RED", "BLUE"], ["BLUE", "RED"])


def test_what_it_takes_is_estimated(data: Dataset) -> None:
    result = estimate(data, xmc.TrainConfig.from_mapping(CONFIG))
    assert result.memory["encoder parameters"] >= 4 * 24 * 2048
    assert result.memory["activations"] > 0
    assert result.work["labels scored a step"][0] <= 12


def test_search_and_predict_agree(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    rows, scores = retriever.search(QUERIES, k=2)
    labels, same = retriever.predict(QUERIES, k=2)
    uids = np.array(retriever.labels.uids.to_pylist(), object)
    assert np.where(rows < 0, None, uids[rows]).tolist() == labels.tolist()
    np.testing.assert_array_equal(scores, same)


def test_the_stage_leaves_out_what_is_far_below_the_best(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    labels, _scores = retriever.predict(["a pink item"], k=5)
    assert labels[0][0] == "PINK"
    assert labels[0][-1] is None
    retriever.use_stages([])
    every, _ = retriever.predict(["a pink item"], k=5)
    assert None not in every[0]
    assert every[0][0] == "PINK"


@pytest.mark.slow
def test_another_process_that_imports_them_answers_alike(run: Path) -> None:
    labels, scores = xmc.Retriever.load(run).predict(QUERIES, k=3)
    command = [sys.executable, "-c", IMPORT + ANSWER, str(run), json.dumps(QUERIES)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again, scores_again = json.loads(done.stdout)
    assert again == labels.tolist()
    np.testing.assert_allclose(scores_again, scores, rtol=1e-6)


def test_a_process_that_does_not_is_told_what_is_missing(run: Path) -> None:
    command = [sys.executable, "-c", ANSWER, str(run), "[]"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert "StoreError" in last
    assert "There is no encoder 'toy-words'" in last
    assert "known once the module that registers it is imported" in last


def test_a_job_writes_what_the_library_answers(run: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a", "b", "c"], "text": QUERIES}), tmp_path / "queries.parquet")
    summary = predict_files(run, str(tmp_path / "queries.parquet"), str(tmp_path / "answers"), 3)
    assert summary.predicted == 3
    written = pq.read_table(tmp_path / "answers").to_pydict()
    labels, _ = xmc.Retriever.load(run).predict(QUERIES, k=3)
    assert written["uid"] == ["a", "b", "c"]
    for row, answers in enumerate(written["labels"]):
        assert answers == [label for label in labels[row] if label is not None]


def test_a_name_that_is_taken_is_refused(toys: SimpleNamespace) -> None:
    for registry, name in ((ENCODERS, "toy-words"), (LOSSES, "toy_squares"), (STAGES, "toy-gap")):
        with pytest.raises(ConfigError, match="already"):
            registry.register(name, registry[name])
