"""Full disks, errors of disks, files that may not grow, folders without permission: a sentence, and nothing lost or left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_server import CommandServer
from durable_commands import COMMANDS
from fail_commands import Failed, actions, fail_and_check, require_sentence
from kill_commands import Rehearsal, fresh

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("durability")]

FAILURES = int(os.environ.get("XMC_FAILURES", "3"))
"""Failing writes of each command."""
LONGEST_FILES = (0, 200, 3000, 30_000)
"""Bytes that a file may have: those of every command are longer than some."""
NOBODY = 65534


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.slow])
def test_a_failing_write_is_said_and_leaves_what_was_there(
    name: str, server: CommandServer, stock: Path, tmp_path: Path
) -> None:
    command, folder, failed = COMMANDS[name], tmp_path / "here", Failed()
    rehearsal = Rehearsal.of(server, command, stock, folder)
    for number, action in enumerate(actions(rehearsal, FAILURES, seed=FAILURES)):
        again = number == FAILURES - 1
        fail_and_check(server, command, stock, folder, rehearsal, action, failed, again=again)
    longest = LONGEST_FILES if FAILURES > 3 else [LONGEST_FILES[len(name) % len(LONGEST_FILES)]]
    for longest_file in longest:
        fail_and_check(server, command, stock, folder, rehearsal, None, failed, longest_file=longest_file)
    print(f"{name}: {failed}")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="xmc-durability-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.slow])
def test_a_folder_without_permission_is_said(name: str, server: CommandServer, stock: Path, open_folder: Path) -> None:
    command, folder = COMMANDS[name], open_folder / "here"
    before = Rehearsal.of(
        server, command, stock, folder
    ).before  # so that all is imported, which nobody may be unable to read
    fresh(server, command, stock, folder)
    user = NOBODY if os.getuid() == 0 else None  # no permission is refused to root
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    ended = server.run(command.arguments, folder, user=user)
    for path in folders:
        path.chmod(0o755)
    assert "ermission" in require_sentence(ended)
    assert command.see(folder) == before
