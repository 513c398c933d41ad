"""What the log says of the time before the first step."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from worlds import colours, logged_steps, tiny_config

import xmc
from xmc.report.curves import read_training_log
from xmc.storage.manifests import LOG


def phases_of(run: Path) -> list[dict[str, Any]]:
    """The lines about what came before a first step."""
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [line for line in lines if "startup_seconds" in line]


def test_the_first_line_has_the_seconds_of_each_phase(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="xmc.training"):
        result = xmc.train(colours(), tiny_config(epochs=1, negatives="bank"), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    (first,) = phases_of(tmp_path / "run")
    assert lines[0] == first
    assert set(first) == {"step", "startup_seconds"}
    assert first["step"] == 0
    phases = first["startup_seconds"]
    wanted = {
        "data set",
        "model",
        "tokenising queries",
        "tokenising labels",
        "targets",
        "bank",
        "optimizers",
        "first step",
    }
    assert wanted <= set(phases)
    assert all(seconds >= 0 for seconds in phases.values())
    assert phases["bank"] > 0
    assert len(logged_steps(tmp_path / "run")) == result.steps == len(lines) - 1
    (said,) = [record.getMessage() for record in caplog.records if "before the first step" in record.getMessage()]
    assert ", the second " in said
    curves = read_training_log(tmp_path / "run")
    assert [step for step, _ in curves.loss] == list(range(1, result.steps + 1))


def test_a_named_token_cache_is_a_phase(tmp_path: Path) -> None:
    for name in ("first", "again"):
        xmc.train(colours(), tiny_config(epochs=1, token_cache=str(tmp_path / "tokens")), tmp_path / name)
    first, again = (phases_of(tmp_path / name)[0]["startup_seconds"] for name in ("first", "again"))
    assert {"token cache", "tokenising queries", "tokenising labels"} <= set(first)
    assert "token cache" in again
    assert not {"tokenising queries", "tokenising labels"} & set(again)


def test_a_run_of_one_step_is_told_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="xmc.training"):
        xmc.train(colours(), tiny_config(epochs=1, batch_size=400), tmp_path / "run")
    (said,) = [record.getMessage() for record in caplog.records if "before the first step" in record.getMessage()]
    assert "the second" not in said
    assert len(phases_of(tmp_path / "run")) == 1
