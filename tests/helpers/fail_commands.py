"""Commands whose writes fail: a disk that becomes full, an error of one call, files that may not grow.

Then the command says so in one sentence, with exit code 2, what was there stays, and nothing half written is left.
A write that a command can do without (a cache, notes of a tuning) may fail without an end of the command.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from command_server import CommandServer, Ended
from durable_commands import WritingCommand
from kill_commands import Rehearsal, as_before_or_after, fresh, names, repeat
from write_events import Action

__all__ = ["Failed", "actions", "fail_and_check", "require_sentence"]


@dataclass
class Failed:
    """How often a write failed, how often the command went on without it, and the sentences that were said."""

    tried: int = 0
    went_on: int = 0
    said: set[str] = field(default_factory=set)


def actions(rehearsal: Rehearsal, count: int, seed: int) -> Iterator[Action]:
    """Of each three, two disks that become full at some write, and one write that fails alone (EIO)."""
    chosen = random.Random(seed)
    for number in range(count):
        at = 1 + int((number + chosen.random()) * rehearsal.events / count)
        yield Action("fail", at, errno.EIO) if number % 3 == 2 else Action("fill", at, errno.ENOSPC)


def fail_and_check(
    server: CommandServer,
    command: WritingCommand,
    stock: Path,
    folder: Path,
    rehearsal: Rehearsal,
    action: Action | None,
    failed: Failed,
    *,
    longest_file: int | None = None,
    again: bool = False,
) -> None:
    """Run a command in a fresh folder with failing writes; AssertionError for a loss, something left, or no sentence.

    again: repeat it without failures then, on the same folder.
    """
    fresh(server, command, stock, folder)
    ended = server.run(command.arguments, folder, action, longest_file=longest_file)
    failed.tried += 1
    seen = command.see(folder)
    if ended.code == 0:
        failed.went_on += 1
        assert seen == rehearsal.after, (action, seen, rehearsal.after, ended.said)
    else:
        failed.said.add(require_sentence(ended, action))
        as_before_or_after(seen, rehearsal, command)
    left = [name for name in names(folder) if _is_temporary(name)]
    assert not left, (action, left, ended.said)
    if again:
        repeat(server, command, folder, rehearsal)


def require_sentence(ended: Ended, context: object = None) -> str:
    """Exit code 2 and one line of an error, without a traceback; the line."""
    assert ended.code == 2, (context, ended)
    assert "Traceback" not in ended.said, (context, ended.said)
    lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, (context, ended.said)
    return lines[0]


def _is_temporary(name: str) -> bool:
    """What a repeat does not go on with, as it does with a download."""
    return any(part.startswith(".") and part.endswith((".tmp", ".old")) for part in name.split("/"))
