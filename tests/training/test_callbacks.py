"""What callbacks hear of training, what their errors do, and what training gives back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from processes import TESTS, run
from worlds import colours, tiny_config

import xmc
from xmc.errors import ConfigError, TrainingError
from xmc.storage.manifests import LOG
from xmc.training.callbacks import Callback
from xmc.training.parts import Progress
from xmc.training.result import TrainResult

VALIDATED = {"epochs": 4, "validation": {"share": 0.25, "patience": 50}}


class Recorder(Callback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.values: dict[int, Mapping[str, float]] = {}
        self.validations: dict[int, Mapping[str, float]] = {}
        self.saved: list[str] = []
        self.result: TrainResult | None = None

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        self.heard.append(("step", step))
        self.values[step] = values

    def on_validation(self, step: int, values: Mapping[str, float]) -> None:
        self.heard.append(("validation", step))
        self.validations[step] = values

    def on_save(self, step: int, directory: Path) -> None:
        assert (directory / "manifest.json").is_file()
        self.heard.append(("save", step))
        self.saved.append(directory.name)

    def on_end(self, result: TrainResult) -> None:
        self.result = result


def lines_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / LOG).read_text().splitlines()]


def test_callbacks_hear_every_step_evaluation_and_save(tmp_path: Path) -> None:
    recorder = Recorder()
    config = tiny_config(**VALIDATED, checkpoint={"steps": 6})
    result = xmc.train(colours(), config, tmp_path / "run", callbacks=[recorder])
    lines = lines_of(tmp_path / "run")
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert {step: values["loss"] for step, values in recorder.values.items()} == losses
    assert recorder.values[1]["time/data"] == next(line for line in lines if "loss" in line)["time"]["data"]
    validations = {line["step"]: line["validation"] for line in lines if "validation" in line}
    assert recorder.validations == validations
    assert recorder.heard[:5] == [("step", number) for number in (1, 2, 3, 4)] + [("validation", 4)]
    assert recorder.heard[5] == ("save", 4)
    assert "step-000000006" in recorder.saved
    assert set(recorder.saved) == {"run", "step-000000006", "step-000000012"}
    assert recorder.result == result


def test_the_result_names_the_best_epoch_with_its_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(**VALIDATED).changed(validation={**VALIDATED["validation"], "metric": "nDCG@3"})
    with caplog.at_level(logging.INFO, "xmc.training"):
        result = xmc.train(colours(), config, tmp_path / "run")
    values = {line["step"]: line["validation"] for line in lines_of(tmp_path / "run") if "validation" in line}
    assert [validated.step for validated in result.history] == list(values) == [4, 8, 12, 16]
    assert [validated.epoch for validated in result.history] == [1, 2, 3, 4]
    assert {validated.step: validated.values for validated in result.history} == values
    best = max(values, key=lambda step: values[step]["nDCG@3"])
    assert (result.metric, result.best, result.best_step) == ("nDCG@3", values[best]["nDCG@3"], best)
    assert result.best_epoch == best // 4
    sentence = f"best epoch {best // 4} with nDCG@3 {values[best]['nDCG@3']:.2f} on the held-out queries, run in"
    assert sentence in str(result)
    assert caplog.messages[-1] == str(result)
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["validation"] == values[best]


def test_without_held_out_queries_there_is_no_best_epoch(tmp_path: Path) -> None:
    result = xmc.train(colours(), tiny_config(epochs=1), tmp_path / "run")
    assert (result.metric, result.best, result.best_epoch, result.best_step, result.history) == (None,) * 4 + ((),)
    assert "best" not in str(result)


class Failing:
    """Fails in one method at one step."""

    def __init__(self, event: str, step: int) -> None:
        self.step, self.called = step, 0
        setattr(self, event, self._call)

    def _call(self, step: int, *_: object) -> None:
        self.called += 1
        if step == self.step:
            raise ValueError("no connection")


@pytest.mark.parametrize(("event", "step"), [("on_step", 5), ("on_validation", 4), ("on_save", 3)])
def test_a_callback_that_fails_stops_training_and_the_checkpoint_stays(tmp_path: Path, event: str, step: int) -> None:
    config = tiny_config(**VALIDATED, checkpoint={"steps": 3})
    failing, recorder = Failing(event, step), Recorder()
    with pytest.raises(TrainingError) as raised:
        xmc.train(colours(), config, tmp_path / "run", callbacks=[recorder, failing])
    stopped = max(recorder.values)
    checkpoint = tmp_path / "run.checkpoints" / f"step-{stopped:09d}"
    assert str(raised.value) == (
        f"The callback Failing.{event} failed: ValueError: no connection. The checkpoint {checkpoint} stays; go on with "
        f"resume once that is mended."
    )
    assert isinstance(raised.value.__cause__, ValueError)
    assert checkpoint.is_dir()
    assert stopped == step
    result = xmc.train(colours(), config, tmp_path / "run", resume=True)
    assert result.steps == 16
    whole = xmc.train(colours(), config, tmp_path / "whole")
    assert [validated.values for validated in result.history] == [validated.values for validated in whole.history]
    assert result.loss == whole.loss


def test_a_callback_that_fails_at_the_end_leaves_the_run(tmp_path: Path) -> None:
    class Ending:
        def on_end(self, result: TrainResult) -> None:
            raise KeyError("token")

    with pytest.raises(TrainingError, match=r"Ending\.on_end failed: KeyError: 'token'\. The run in .*run is whole\."):
        xmc.train(colours(), tiny_config(epochs=1), tmp_path / "run", callbacks=[Ending()])
    assert len(xmc.Retriever.load(tmp_path / "run")) == 12


def test_what_is_no_callback_is_refused_before_training(tmp_path: Path) -> None:
    class Typo:
        def on_steps(self, step: int) -> None: ...

    for wrong, message in (
        (Typo(), r"Typo has none of the methods on_step, .* Did you mean 'on_step'\?"),
        (print, "has none of the methods"),
        (Recorder, r"Recorder is a class; give Recorder\(\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            xmc.train(colours(), tiny_config(epochs=1), tmp_path / "run", callbacks=[wrong])
    assert not (tmp_path / "run").exists()


def test_progress_of_an_older_checkpoint_has_no_history() -> None:
    old = {"seconds": 1.0, "steps": 4, "loss": 0.5, "best": 80.0, "since_best": 1, "finished": False}
    assert Progress.from_dict(old) == Progress(1.0, 4, 0.5, 80.0, 1, False, [])


@pytest.mark.slow
def test_of_several_processes_the_first_calls(tmp_path: Path) -> None:
    """And all of them end where its callback fails."""
    output = run(2, [str(TESTS / "distributed_callbacks.py"), str(tmp_path / "out")])
    assert sorted(line for line in output.splitlines() if line.startswith("process")) == [
        "process 0: 8 steps, 2 evaluations; The callback Failing.on_step failed: ValueError: at step 3",
        "process 1: 0 steps, 0 evaluations; The callback Failing.on_step failed: ValueError: at step 3",
    ]
