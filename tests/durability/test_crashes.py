"""A crash of the machine at any moment, in which unsynced writes are lost: old or new, never neither, never half.

See the module `crash_states` for what a disk may hold then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from command_server import CommandServer
from crash_states import Trace, write_state
from durable_commands import COMMANDS
from kill_commands import Rehearsal, as_before_or_after, fresh, repeat
from write_events import Action, compiled

from xmc.serve.journal import Journal

pytestmark = pytest.mark.xdist_group("durability")

MIXTURES = int(os.environ.get("XMC_MIXTURES", "1"))
"""Mixtures of lost and kept writes that are tried for each prefix of a trace."""
TRACED = (
    "train",
    "train --overwrite",
    "federated",
    "data convert --overwrite",
    "data import-images",
    "index",
    "calibrate",
    "labels add",
    "predict",
    "predict --format csv",
    "embed to .npy",
    "evaluate",
    "report",
    "export --to sentence-transformers",
)
OFTEN = ("data convert --overwrite", "labels add", "predict")
"""What stands for the ways to write: a directory replaced, one changed in place, a job of parts."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in OFTEN else pytest.mark.nightly) for name in TRACED]
)
def test_a_crash_leaves_the_old_or_the_new(name: str, server: CommandServer, stock: Path, tmp_path: Path) -> None:
    command, folder, copies = COMMANDS[name], tmp_path / "here", tmp_path / "copies"
    rehearsal = Rehearsal.of(server, command, stock, folder)
    fresh(server, command, stock, folder)
    trace, states = Trace(folder), Counter[str]()
    copies.mkdir()
    ended = server.run(command.arguments, folder, Action("trace", copies=str(copies)))
    assert ended.code == 0, ended.said
    for prefix, kind, state in trace.states(copies, MIXTURES):
        shutil.rmtree(folder)
        write_state(state, folder, trace.times)
        where = f"{prefix} of {len(trace.records)} operations, {kind}"
        try:
            seen = command.see(folder)
            as_before_or_after(seen, rehearsal, command)
        except BaseException as error:
            raise AssertionError(f"a crash after {where}: {error!r}") from error
        states["old" if seen == rehearsal.before else "new" if seen == rehearsal.after else "some"] += 1
    print(f"{name}: {len(trace.records)} operations, {states}")
    assert seen == rehearsal.after  # with all operations and all content there
    assert states["old"]
    repeat(server, command, folder, rehearsal)


@pytest.mark.slow
def test_a_crash_loses_no_confirmed_change_of_a_journal(tmp_path: Path) -> None:
    folder, copies = tmp_path / "here", tmp_path / "copies"
    folder.mkdir()
    copies.mkdir()
    trace = Trace(folder)
    program = Path(__file__).parents[1] / "helpers" / "journal_writer.py"
    environment = {**os.environ, "LD_PRELOAD": compiled(), "PYTHONPATH": str(program.parent)}
    subprocess.run([sys.executable, program, folder, copies], env=environment, check=True)
    for prefix, kind, state in trace.states(copies, max(3, MIXTURES)):
        shutil.rmtree(folder)
        write_state(state, folder)
        made = [record for record in trace.records[:prefix] if record[0] == "mkdir"]
        journal = Journal(folder / "changes.journal")
        journal.follow()
        try:
            assert journal.last in (len(made), len(made) + 1), (prefix, kind, journal.last, len(made))
            numbers = [entry.number for entry in journal.pending]
            assert numbers == list(range(journal.last - len(numbers) + 1, journal.last + 1))
            with journal.writing() as writer:  # it is written on
                journal.follow()
                assert writer.append({"text": "after the crash"}).number == journal.last
        finally:
            journal.close()
