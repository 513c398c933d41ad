"""Every command that the command line proposes works as it stands, in names that a shell would take apart too."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from layouts import lines
from typer.testing import CliRunner, Result
from worlds import TINY, colours

import xmc
from xmc.cli import app
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset


def ran(*arguments: object) -> Result:
    """A command that must end well."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done


def proposed(done: Result) -> list[str]:
    """The words of the command in the last line."""
    line = done.stdout.splitlines()[-1]
    assert line.startswith("next: xmc "), done.stdout
    return shlex.split(line.removeprefix("next: "))[1:]


def without_test(directory: Path, other: str | None = None) -> Path:
    """The colours without a test split, and with another one by a name if that is asked for."""
    data = colours()
    splits = {
        name: (data.split(split).texts.to_pylist(), [row.indices.tolist() for row in data.split(split).positives])
        for name, split in (("train", "train"), (other, "test"))
        if name is not None
    }
    uids = data.labels.uids.to_pylist()
    Dataset.from_lists("colours", data.labels.texts.to_pylist(), splits, label_uids=uids).save(directory)
    return directory


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    file.write_text(TrainConfig.from_mapping(TINY).to_yaml())
    return file


@pytest.mark.parametrize("split", ["test", "validation", None])
def test_after_training(split: str | None, config: Path, tmp_path: Path) -> None:
    data = without_test(tmp_path / "it's data [v2]", split)
    out = tmp_path / "my run"
    words = proposed(ran("train", config, "--dataset", data, "--out", out, "--set", "epochs=1"))
    if split is None:
        text = Dataset.load(data).split("train").texts[0].as_py()
        assert words == ["search", str(out), text]
        assert "label" in ran(*words).stdout
    else:
        named = [] if split == "test" else ["--split", split]
        assert words == ["evaluate", str(out), str(data), *named]
        assert f"split {split}: 100 queries" in ran(*words).stdout


def test_after_calibration(config: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "my run", tmp_path / "data"
    colours().save(data)
    ran("train", config, "--dataset", data, "--out", run, "--set", "calibration=0.3")
    words = proposed(ran("calibrate", run, data))
    assert words[:2] == ["predict", str(run)]
    assert words[words.index("--sets") + 1] == "recall=0.8"
    assert "predicted 100 of 100 rows" in ran(*words).stdout
    again = proposed(ran("calibrate", run, data, "--candidates", 1))  # that can guarantee no recall of 0.8
    assert "--sets" not in again
    assert again[-1] != words[-1]  # where there are predictions already
    assert "predicted 100 of 100 rows" in ran(*again).stdout


def test_after_another_index_of_a_shipped_data_set(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    settings = ("--set", "calibration=0.02", "--set", "epochs=1", "--set", "batch_size=1024")
    ran("train", config, "--dataset", "wordnet-8k", "--out", run, *settings)
    ran("calibrate", run, "wordnet-8k", "--candidates", 20)
    words = proposed(ran("index", run, "int8"))
    assert words == ["calibrate", str(run), "wordnet-8k"]
    assert "next: xmc predict" in ran(*words, "--candidates", 20).stdout


def test_after_another_index_of_a_data_set_that_is_somewhere(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    xmc.train(colours(), TrainConfig.load(config, ["epochs=1"]), run)
    retriever = xmc.Retriever.load(run)
    xmc.calibrate(retriever, colours(), "test")
    retriever.save(run, overwrite=True)
    last = ran("index", run, "int8").stdout.splitlines()[-1]
    assert last.endswith("calibrate again, on the split test of colours")


@pytest.mark.parametrize("share", [0.2, 0.0])
def test_from_one_file_to_an_answer(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert, and then each command that is proposed."""
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{row},a text of {('red', 'green', 'blue')[row % 3]} things,{('red', 'green', 'blue')[row % 3]}"
        for row in range(60)
    ]
    lines(tmp_path / "my file.csv", ["uid,text,labels", *rows])
    train = proposed(ran("data", "convert", "my file.csv", "data/my set", "--test", share))
    assert train == ["train", "--dataset", "data/my set", "--out", "runs/my set"]
    last = proposed(ran(*train))
    assert last[:2] == (["evaluate", "runs/my set"] if share else ["search", "runs/my set"])
    answer = ran(*last).stdout
    assert ("12 queries" if share else "red") in answer
    again = proposed(ran("data", "convert", "my file.csv", "data/my set", "--overwrite"))
    assert again[-1] == "runs/my set-2"  # where no run is yet
