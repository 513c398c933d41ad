"""`xmc config`, and what the shell is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import fail, fail_each, xmc
from typer.testing import CliRunner

from xmc.cli import app
from xmc.config import TrainConfig
from xmc.config.commented import commented_yaml
from xmc.config.explain import explained_keys
from xmc.config.shipped import config_file, shipped_configs
from xmc.data.readers import READERS
from xmc.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


COMPLETE = """
import json, os, sys
from xmc.cli import app
os.environ["_XMC_COMPLETE"] = "complete_bash"
for words in json.loads(sys.argv.pop()):
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = words, str(words.count(" "))
    try:
        app(prog_name="xmc")
    except SystemExit:
        print()
        print("end")
"""


def completed(*typed: str) -> list[list[str]]:
    """What bash is offered for the last word of each line, in one process for them all."""
    done = subprocess.run([sys.executable, "-c", COMPLETE, json.dumps(typed)], capture_output=True, text=True)
    assert done.stderr == ""
    return [offered.split() for offered in done.stdout.split("end\n")][:-1]


def test_init_writes_every_key_with_its_meaning(tmp_path: Path) -> None:
    file = tmp_path / "my config.yaml"
    done = xmc("config", "init", file, "--set", "epochs=4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"next: xmc train '{file}' --dataset wordnet-8k --out 'runs/my config'\n")
    assert TrainConfig.load(file) == TrainConfig(epochs=4)
    text = file.read_text(encoding="utf-8")
    words = " ".join(text.replace("#", " ").split())
    missing = [
        key.name for key in explained_keys() if key.kind in ("", "static", "residual") and key.meaning not in words
    ]
    assert missing == []
    assert "# Passes over the training queries. (int, at least 1, default 9)\nepochs: 4\n" in text
    fail(xmc("config", "init", file), f"{file} is already there; name another file, or replace it with --overwrite.")
    fail(
        xmc("config", "init", tmp_path, "--overwrite"),
        f"{tmp_path} is a directory; name a file such as {tmp_path}/config.yaml.",
    )
    assert TrainConfig.load(file).epochs == 4
    assert xmc("config", "init", file, "--overwrite", "--like", "minilm-wordnet-8k").returncode == 0
    assert TrainConfig.load(file) == TrainConfig.load(ROOT / "configs" / "minilm-wordnet-8k.yaml")


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_a_commented_configuration_is_the_same(name: str) -> None:
    config = TrainConfig.load(name)
    text = commented_yaml(config)
    assert TrainConfig.from_mapping(yaml.safe_load(text)) == config
    assert max(map(len, text.splitlines())) <= 140


def test_shipped_configurations_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name: file.resolve() for name, file in shipped_configs().items()} == {
        file.stem: file for file in (ROOT / "configs").glob("*.yaml")
    }
    assert TrainConfig.load("static") == TrainConfig.load(ROOT / "configs" / "static.yaml")
    monkeypatch.chdir(tmp_path)
    Path("static").write_text("epochs: 3\n")
    assert config_file("static") == Path("static"), "a file goes before a name"
    with pytest.raises(ConfigError, match=r"statics cannot be read: .* Did you mean 'static'\?"):
        config_file("statics")


def test_explain_and_schema_are_those_of_train() -> None:
    explained = xmc("config", "explain", "encoder.dimension")
    assert explained.returncode == 0, explained.stderr
    assert "int, at least 1, default 384" in explained.stdout
    assert "Length D of an embedding." in explained.stdout
    assert explained.stdout == xmc("train", "--explain", "encoder.dimension").stdout
    assert "temperature is objective.temperature now" in xmc("train", "--explain", "temperature").stdout
    fail_each(
        (["config", "explain", "encoder.dimensions"], "Did you mean 'encoder.dimension'?"),
        (["train", "--explain", "encoder.dimensions"], "Did you mean 'encoder.dimension'?"),
    )
    schema = xmc("config", "schema").stdout
    assert json.loads(schema)["properties"]["epochs"] == {
        "default": 9, "description": "Passes over the training queries.", "minimum": 1, "title": "Epochs", "type": "integer"
    }  # fmt: skip
    assert schema == xmc("train", "--schema").stdout


def test_train_takes_the_name_of_a_configuration() -> None:
    fail_each(
        (["train", "statik", "--dataset", "wordnet-8k"], "Did you mean 'static'?"),
        (["train", "static", "--set", "epoch=3"], "static.yaml has the unknown key 'epoch'. Did you mean 'epochs'?"),
    )


@pytest.mark.slow
def test_the_shell_completes_what_the_program_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("steps.yaml").touch()
    Path("words").mkdir()
    offered = {
        "xmc con": ["config"],
        "xmc train st": ["static", "static-lf-wordnet", "steps.yaml"],
        "xmc train --set encoder.dim": ["encoder.dimension="],
        "xmc train --dataset w": ["wordnet-8k", "words/"],
        "xmc config explain validation.m": ["validation.metric"],
        "xmc data convert in out --on-bad-row ": ["error", "drop"],
        "xmc data convert in out --format ": list(READERS),
        "xmc embed run --side ": ["query", "label"],
        "xmc index run in": ["int8"],
        "xmc predict run --format c": ["csv"],
        "xmc data split w": ["wordnet-8k", "words/"],
        "xmc index run --metric l": ["latency"],
        "xmc evaluate run wordnet-8k --split t": ["train", "test"],
    }
    assert dict(zip(offered, completed(*offered), strict=True)) == offered


def test_choices_are_shown() -> None:
    def help_of(*command: str) -> str:
        return (
            CliRunner()
            .invoke(app, [*command, "--help"], env={"COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"})
            .output
        )

    convert = help_of("data", "convert")
    assert "error|drop" in convert
    assert [name for name in READERS if name not in convert] == []
    for command in ("predict", "embed"):
        assert "error|null|drop" in help_of(command)
        assert "local|ray" in help_of(command)
    assert "query|label" in help_of("embed")
    assert "run|sentence-transformers" in help_of("export")
    assert "throughput|latency" in help_of("index")
