"""Fitting re-rankers: on which queries, what cross-fitting says, what calibration makes of it, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from worlds import KEPT_ASIDE, texts_of_split

import xmc
from xmc.cli import app
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError, DataError, InputError
from xmc.evaluation.check import check
from xmc.evaluation.evaluate import evaluate_split
from xmc.evaluation.fit_reranker import FittedReranker
from xmc.evaluation.held_aside import queries_to_calibrate_on, queries_to_fit_on


@pytest.fixture(scope="module")
def fitted(run: Path, data: Dataset) -> tuple[xmc.Retriever, FittedReranker]:
    """The run with a re-ranker that was fitted on half of what it kept aside."""
    retriever = xmc.Retriever.load(run)
    return retriever, xmc.fit_reranker(retriever, data, model="logistic")


def test_it_is_fitted_on_what_is_kept_aside_and_no_more(
    fitted: tuple[xmc.Retriever, FittedReranker], data: Dataset
) -> None:
    retriever, result = fitted
    (stage,) = retriever.stages
    assert stage is result.stage
    aside, on = queries_to_fit_on(retriever, data)
    assert (stage.fitted_on, result.queries) == (on, len(aside.queries))
    assert (on.split, on.share) == ("calibration", 0.5)
    left = queries_to_calibrate_on(retriever, data, "calibration").queries
    assert not set(left.uids.to_pylist()) & set(aside.queries.uids.to_pylist())
    assert len(left) + len(aside.queries) == round(len(data.split("train")) * KEPT_ASIDE)


def test_cross_fitting_says_what_it_is_worth(
    fitted: tuple[xmc.Retriever, FittedReranker], run: Path, data: Dataset
) -> None:
    retriever, result = fitted
    aside, _ = queries_to_fit_on(retriever, data)
    plain = evaluate_split(xmc.Retriever.load(run), data, aside.queries, aside.training)
    assert result.before == pytest.approx({name: plain[name] for name in ("P@1", "P@5", "nDCG@5", "PSP@5")})
    assert result.before.keys() == result.after.keys()
    assert result.gains == (np.mean(list(result.after.values())) > np.mean(list(result.before.values())))
    assert "logistic, " in repr(result)


def test_fitting_again_gives_the_same_in_place_of_the_other(
    fitted: tuple[xmc.Retriever, FittedReranker], run: Path, data: Dataset
) -> None:
    _, result = fitted
    other = xmc.Retriever.load(run)
    xmc.fit_reranker(other, data, ["scores"], "logistic", shortlist=10)
    again = xmc.fit_reranker(other, data, model="logistic")
    assert other.stages == (again.stage,)
    assert again.stage.fingerprint == result.stage.fingerprint
    assert again.after == result.after


@pytest.mark.slow
def test_trees_are_fitted_by_default(run: Path, data: Dataset) -> None:
    retriever = xmc.Retriever.load(run)
    result = xmc.fit_reranker(retriever, data, shortlist=10)
    assert (result.stage.model.name, result.stage.shortlist) == ("trees", 10)
    scores = retriever.search(texts_of_split(data), 5)[1]
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_calibration_with_a_re_ranker_holds(
    fitted: tuple[xmc.Retriever, FittedReranker], data: Dataset, tmp_path: Path
) -> None:
    """Its queries are none that the re-ranker was fitted on, and what it guarantees is true of test queries."""
    retriever, result = fitted
    with pytest.raises(InputError, match="stage"):
        retriever.predict_proba(texts_of_split(data)[:2])
    calibration = xmc.calibrate(retriever, data, candidates=60)
    assert calibration.source.queries + result.queries == round(len(data.split("train")) * KEPT_ASIDE)
    assert check(retriever, data).holds
    retriever.save(tmp_path / "run")
    texts = texts_of_split(data)[:5]
    stored = xmc.Retriever.load(tmp_path / "run").predict_proba(texts)[1]
    assert stored.tolist() == retriever.predict_proba(texts)[1].tolist()


def test_a_calibration_with_memory_and_re_ranker_holds(run: Path, data: Dataset) -> None:
    retriever = xmc.Retriever.load(run)
    xmc.fit_memory(retriever, data, "own")
    result = xmc.fit_reranker(retriever, data, model="logistic")
    assert [feature.name for feature in result.stage.features] == ["scores", "neighbours"]
    calibration = xmc.calibrate(retriever, data, candidates=60)
    assert list(calibration.source.stages or {})[2:-1] == ["memory", "rerank"]
    assert check(retriever, data).holds


def test_another_memory_leaves_the_re_ranker_out(run: Path, data: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    retriever = xmc.Retriever.load(run)
    xmc.fit_reranker(retriever, data, model="logistic")
    assert retriever.cut(8).stages == ()
    assert not caplog.records
    xmc.fit_memory(retriever, data, "own")
    assert [stage.name for stage in retriever.stages] == ["memory"]
    assert "fitted with other votes, and is left out; fit it again" in caplog.text


def test_the_command(run: Path, data: Dataset, tmp_path: Path) -> None:
    data.save(tmp_path / "data")
    shutil.copytree(run, tmp_path / "run")
    arguments = ["rerank", str(tmp_path / "run"), str(tmp_path / "data"), "--model", "logistic"]
    said = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert said["before"].keys() == said["after"].keys()
    assert [stage.name for stage in xmc.Retriever.load(tmp_path / "run").stages] == ["rerank"]
    assert "by logistic on scores" in CliRunner().invoke(app, arguments).stdout
    refused = CliRunner().invoke(app, [*arguments, "--split", "train"])
    assert isinstance(refused.exception, DataError)


def test_what_cannot_be_fitted_is_refused(run: Path, data: Dataset) -> None:
    retriever = xmc.Retriever.load(run)
    with pytest.raises(DataError, match="The run was trained on the split 'train'"):
        xmc.fit_reranker(retriever, data, split="train")
    with pytest.raises(DataError, match=r"at least 100 are needed"):
        xmc.fit_reranker(retriever, data, share=0.01)
    with pytest.raises(InputError, match=r"must be a Retriever, but is "):
        xmc.fit_reranker(run, data)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="shortlist must be at least 1, but is 0"):
        xmc.fit_reranker(retriever, data, shortlist=0)
    with pytest.raises(ConfigError, match="There is no model of re-rankers 'forest'; choose one of trees, logistic"):
        xmc.fit_reranker(retriever, data, model="forest")
    with pytest.raises(ConfigError, match=r"There is no feature of re-rankers 'score'.* Did you mean 'scores'"):
        xmc.fit_reranker(retriever, data, ["score"])
    with pytest.raises(ConfigError, match="each once, but are "):
        xmc.fit_reranker(retriever, data, ["scores", "scores"])
    with pytest.raises(InputError, match="put 'scores' into a list"):
        xmc.fit_reranker(retriever, data, "scores")
    with pytest.raises(InputError, match="'cosine' needs another encoder; name the directory of one with encoder="):
        xmc.fit_reranker(retriever, data, ["scores", "cosine"])
    with pytest.raises(ConfigError, match="is not a directory"):
        xmc.fit_reranker(retriever, data, encoder=run / "nothing")
    assert not retriever.stages
