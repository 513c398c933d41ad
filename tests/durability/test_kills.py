"""SIGKILL at any write of every command that writes: old or new, never neither, and a repeat ends in the right result.

Servers and jobs by Ray, which are several processes, are killed by tests of their own: test_server_kills, test_batch_ray.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_server import CommandServer
from durable_commands import COMMANDS
from kill_commands import kill_and_check

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("durability")]

KILLS = int(os.environ.get("XMC_KILLS", "20"))
"""Kills of a command."""
PRINCIPAL = ("train", "data convert --overwrite", "labels add", "predict", "embed to .arrow", "config init")
"""One command of each way to write; without XMC_KILLS the others, which share a way with one of them, are killed less often."""
LESS = 5
"""A command is killed so many times less often where it takes seconds, or where it is not one of the principal ones."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_leaves_the_old_or_the_new(name: str, server: CommandServer, stock: Path, tmp_path: Path) -> None:
    command = COMMANDS[name]
    if command.slow and "XMC_KILLS" not in os.environ:
        pytest.skip("takes minutes; XMC_KILLS, a number of kills, is not set")
    often = not command.slow and (name in PRINCIPAL or "XMC_KILLS" in os.environ)
    kills = KILLS if often else max(2, KILLS // LESS)
    killed = kill_and_check(server, command, stock, tmp_path / "here", kills, every=5, seed=KILLS)
    print(f"{name}: {killed}")
    assert killed.met > 0
