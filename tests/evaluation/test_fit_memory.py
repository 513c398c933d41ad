"""A memory fitted on queries kept aside, at the end of training and by a call, and calibration with it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from worlds import colours, tiny_config

import xmc
from xmc.cli import app
from xmc.data.dataset import Dataset
from xmc.data.held_out import uses_of_queries
from xmc.errors import ConfigError, DataError
from xmc.evaluation.check import check
from xmc.evaluation.held_aside import queries_to_calibrate_on
from xmc.evaluation.memory import FittedMemory
from xmc.evaluation.memory_rules import DEPTH


@pytest.fixture(scope="module")
def fitted(run: Path, data: Dataset) -> tuple[xmc.Retriever, FittedMemory]:
    """With a memory that was fitted on half of the queries kept for calibration."""
    retriever = xmc.Retriever.load(run)
    return retriever, xmc.fit_memory(retriever, data, "own")


def test_fitting_measures_what_evaluation_does(run: Path, data: Dataset) -> None:
    """Fitting has metrics of its own, which are those of evaluation on the same queries."""
    again = xmc.Retriever.load(run)
    found = xmc.fit_memory(again, data, "own", split="test")
    for searched, measured in ((xmc.Retriever.load(run), found.without), (again, found.with_votes)):
        result = xmc.evaluate(searched, data, k=[1, DEPTH], metrics="p,ndcg")
        assert result.to_dict().get("stages", []) == [stage.name for stage in searched.stages]
        for name in ("P@1", "P@5", "nDCG@5"):
            assert measured[name] == pytest.approx(result[name], abs=1e-6), name
    assert found.queries == len(data.split("test"))


def test_no_query_that_is_kept_aside_is_remembered(fitted: tuple[xmc.Retriever, FittedMemory], data: Dataset) -> None:
    retriever, found = fitted
    assert found.memory is retriever.memory
    train = data.split("train")
    uses = uses_of_queries(len(train), 0, retriever.config.calibration, retriever.config.seed)
    remembered = set(found.memory.texts.to_pylist())  # type: ignore[union-attr]
    kept_aside = set(train.take(uses.calibration).texts.to_pylist())
    learned = set(train.take(uses.training).texts.to_pylist())
    assert remembered <= learned
    assert not remembered & (kept_aside - learned)
    assert len(found.memory or ()) == len(uses.training)


def test_guarantees_hold_with_a_memory(
    fitted: tuple[xmc.Retriever, FittedMemory], data: Dataset, tmp_path: Path
) -> None:
    retriever, _ = fitted
    left = len(queries_to_calibrate_on(retriever, data, "calibration").queries)
    calibration = xmc.calibrate(retriever, data, candidates=60)
    assert calibration.source.queries == left
    assert "memory" in (calibration.source.stages or {})
    checked = check(retriever, data)
    assert all(one.holds for one in checked.checks), checked.sentences()
    assert retriever.fits_calibration()
    retriever.remember(["a thing that nobody has seen"], [[retriever.labels.uids[0].as_py()]])
    assert not retriever.fits_calibration()
    retriever.save(tmp_path / "run")
    assert not xmc.Retriever.load(tmp_path / "run").fits_calibration()


def test_training_fits_a_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = colours()
    with caplog.at_level(logging.INFO, "xmc"):
        xmc.train(data, tiny_config(epochs=2, validation=0.3, memory="own"), tmp_path / "held-out")
        retriever = xmc.Retriever.load(tmp_path / "held-out")
        assert len(retriever.memory or ()) == len(
            data.split("train")
        )  # those held out too, once the rule is chosen on them
        assert retriever.stages[0].fitted_on is not None
        with pytest.raises(DataError, match="stages were fitted on left out"):
            queries_to_calibrate_on(retriever, data, "validation")
        xmc.train(data, tiny_config(epochs=1, memory="own"), tmp_path / "all")
        assert len(xmc.Retriever.load(tmp_path / "all").memory or ()) == len(data.split("train"))
        assert "is not fitted, but left at the default" in caplog.text
        xmc.train(data, tiny_config(epochs=1, memory="auto"), tmp_path / "auto")
        assert xmc.Retriever.load(tmp_path / "auto").memory is None


def test_a_memory_that_does_not_gain_is_not_used(tmp_path: Path) -> None:
    """Labels that are drawn by chance: no neighbour knows anything."""
    rng = np.random.default_rng(0)
    names = [f"label {number}" for number in range(40)]
    splits = {
        split: (
            [f"text {split} {number}" for number in range(count)],
            [[int(label)] for label in rng.integers(0, 40, count)],
        )
        for split, count in (("train", 300), ("test", 150))
    }
    data = Dataset.from_lists("chance", names, splits)
    xmc.train(data, tiny_config(epochs=1), tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    found = xmc.fit_memory(retriever, data, split="test")
    assert (found.gains, found.memory, retriever.memory, retriever.stages) == (False, None, None, ())
    with pytest.raises(ConfigError, match="or a directory with an encoder, but 'nowhere' is no directory"):
        xmc.fit_memory(retriever, data, "nowhere", split="test")
    with pytest.raises(DataError, match=r"Train it with calibration=0\.1"):
        xmc.fit_memory(retriever, data)


def test_the_command(tmp_path: Path) -> None:
    data = colours()
    data.save(tmp_path / "data")
    xmc.train(data, tiny_config(epochs=2, validation=0.3), tmp_path / "run")
    arguments = ["memory", str(tmp_path / "run"), str(tmp_path / "data"), "--encoder", "own"]
    said = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert said["queries"] == 120
    assert said["remembered"] == len(xmc.Retriever.load(tmp_path / "run").memory or ())
    text = CliRunner().invoke(app, arguments).stdout
    assert "The run remembers" in text
    assert "bytes a query" in text
