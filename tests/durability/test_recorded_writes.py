"""The instruments themselves: a write that is not synced is lost in some state, and kills come where they are told to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crash_states import Trace, write_state
from write_events import compiled

PROGRAM = """
import os, sys
from write_events import Action, arm
kind, at, copies = sys.argv[1], int(sys.argv[2]), sys.argv[3]
arm(os.getcwd(), Action(kind, at, 28, copies))
with open(".new", "w") as file:
    file.write("new")
    file.flush()
    if "synced" in sys.argv:
        os.fsync(file.fileno())
os.replace(".new", "file")
"""


def run(folder: Path, kind: str, at: int = 0, copies: str = "", *more: str) -> subprocess.CompletedProcess[str]:
    helpers = str(Path(__file__).parents[1] / "helpers")
    environment = {**os.environ, "LD_PRELOAD": compiled(), "PYTHONPATH": helpers}
    command = [sys.executable, "-c", PROGRAM, kind, str(at), copies, *more]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_text("old")
    return tmp_path / "here"


@pytest.mark.parametrize(("synced", "expected"), [(True, {"old", "new"}), (False, {"old", "new", "", "\0\0\0", "n"})])
def test_what_is_not_synced_may_be_lost(synced: bool, expected: set[str], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    trace = Trace(folder)
    done = run(folder, "trace", 0, str(tmp_path / "copies"), *(["synced"] if synced else []))
    assert done.returncode == 0, done.stderr
    found = set()
    for _, _, state in trace.states(tmp_path / "copies", mixtures=3):
        shutil.rmtree(folder)
        write_state(state, folder)
        found.add((folder / "file").read_text())
    assert found == expected


def test_kills_and_failures_come_where_they_are_told_to(folder: Path) -> None:
    ends = [run(folder, "kill", at).returncode for at in range(1, 5)]
    assert ends == [-9, -9, -9, 0]  # a new file, what is written, the name
    assert (folder / "file").read_text() == "new"
    assert "No space left on device" in run(folder, "fill", 2).stderr
    assert "No space left on device" in run(folder, "fail", 3).stderr
    assert run(folder, "fill", 3).returncode == 0  # to be renamed needs no room
