"""A re-ranker at the end of training: fitted on held-out queries, written with the run, left out where it cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from worlds import colours, tiny_config

import xmc
from xmc.errors import ConfigError


def test_a_finished_run_gets_its_re_ranker(tmp_path: Path) -> None:
    data = colours()
    config = tiny_config(epochs=2, validation=0.3, rerank="logistic")
    xmc.train(data, config, tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    (stage,) = retriever.stages
    assert (stage.name, stage.model.name) == ("rerank", "logistic")  # type: ignore[attr-defined]
    assert stage.fitted_on is not None
    assert (stage.fitted_on.split, stage.fitted_on.fingerprint) == ("validation", data.fingerprint)
    assert (tmp_path / "run" / "metrics.jsonl").exists()
    assert retriever.config == config


@pytest.mark.parametrize(("kind", "level"), [("trees", "WARNING"), ("auto", "INFO")])
def test_without_queries_to_learn_from_there_is_none(
    kind: str, level: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        xmc.train(colours(), tiny_config(epochs=1, validation=0.1, rerank=kind), tmp_path / "run")
    (said,) = [record for record in caplog.records if record.message.startswith("no re-ranker: ")]
    assert said.levelname == level
    assert not xmc.Retriever.load(tmp_path / "run").stages


def test_a_re_ranker_needs_queries_kept_aside() -> None:
    with pytest.raises(ConfigError, match=r"rerank trees is fitted on queries .* set validation\.share or calibration"):
        tiny_config(rerank="trees")
    with pytest.raises(ConfigError, match="rerank"):
        tiny_config(rerank="forest")
    assert tiny_config(rerank="auto").rerank == "auto"
