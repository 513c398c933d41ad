"""Every command that opens a run says where it runs."""

from __future__ import annotations

import pytest
import typer
from typer.main import get_command

from xmc.cli import app
from xmc.cli.devices import devices_named

COMMANDS = ("search", "predict", "embed", "evaluate", "calibrate", "report", "memory", "rerank", "index")
LABELS = ("add", "update", "remove")


@pytest.mark.parametrize("name", [*COMMANDS, *(f"labels {name}" for name in LABELS)])
def test_a_command_takes_a_device(name: str) -> None:
    command = get_command(app)
    for word in name.split():
        assert isinstance(command, typer.core.TyperGroup)
        command = command.commands[word]
    (option,) = [parameter for parameter in command.params if parameter.name == "device"]
    assert (option.opts, option.default) == (["--device"], "auto")


def test_several_devices_are_named_with_commas() -> None:
    assert devices_named("auto") == "auto"
    assert devices_named("cuda:1") == "cuda:1"
    assert devices_named("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
