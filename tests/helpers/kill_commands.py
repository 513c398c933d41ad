"""One harness for all commands: SIGKILL at a chosen write or moment, then what is there, then the repeat."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from command_server import CommandServer, Ended
from durable_commands import Seen, WritingCommand
from durable_stock import take
from write_events import Action

__all__ = ["Killed", "Rehearsal", "age", "as_before_or_after", "kill_and_check", "names", "repeat"]

OLD = 7200.0
"""Seconds by which what a killed process left is made older than it is, so that it counts as left."""
RANDOM_MOMENTS = 5
"""One of so many kills comes at a random time, the others at writes that are spread over all of the command."""


@dataclass(frozen=True)
class Rehearsal:
    """The command without a kill: what a reader sees before and after it, its writes, seconds and the files that it leaves."""

    before: Seen
    after: Seen
    events: int
    seconds: float
    files: frozenset[str]

    @classmethod
    def of(cls, server: CommandServer, command: WritingCommand, stock: Path, folder: Path) -> Rehearsal:
        """Rehearse in a fresh folder; twice where the first run imports what the server has not."""
        while True:
            fresh(server, command, stock, folder)
            before = command.see(folder)
            start = time.perf_counter()
            ended = server.run(command.arguments, folder)
            assert ended.code == 0, ended.said
            if not ended.imported:
                break
        after = command.see(folder)
        assert after != before
        assert ended.events > 0
        return cls(before, after, ended.events, time.perf_counter() - start, names(folder))


@dataclass
class Killed:
    """What happened to a command: kills that met it before its end, repeats, and what was there after kills."""

    kills: int = 0
    met: int = 0
    repeats: int = 0
    left: dict[str, int] = field(default_factory=dict)

    def note(self, seen: Seen, rehearsal: Rehearsal) -> None:
        """Count what was seen after a kill."""
        kind = "old" if seen == rehearsal.before else "new" if seen == rehearsal.after else "some of several results"
        self.left[kind] = self.left.get(kind, 0) + 1


def kill_and_check(
    server: CommandServer, command: WritingCommand, stock: Path, folder: Path, kills: int, every: int, seed: int = 0
) -> Killed:
    """Kill a command so many times, and repeat it after `every` kills on the same folder; AssertionError for any loss.

    Until a repeat, kills come one after another on what the one before left.
    """
    rehearsal = Rehearsal.of(server, command, stock, folder)
    moments, done = random.Random(seed), Killed()
    fresh(server, command, stock, folder)
    for number, action in enumerate(_actions(rehearsal, kills, moments)):
        arguments = _arguments(command, folder)
        seconds = None
        if number % RANDOM_MOMENTS == RANDOM_MOMENTS - 1:
            action, seconds = Action(), moments.uniform(0, rehearsal.seconds)
        ended = server.run(arguments, folder, action, seconds=seconds)
        done.kills += 1
        done.met += ended.killed
        if not ended.killed:
            _require_done(ended, command)
        seen = command.see(folder)
        as_before_or_after(seen, rehearsal, command)
        done.note(seen, rehearsal)
        if number % every == every - 1 or number == kills - 1:
            repeat(server, command, folder, rehearsal)
            done.repeats += 1
            fresh(server, command, stock, folder)
        elif seen == rehearsal.after:
            fresh(server, command, stock, folder)
    return done


def _actions(rehearsal: Rehearsal, kills: int, moments: random.Random) -> Iterator[Action]:
    """Kills at writes, one at random within each stretch of equal length, in random order."""
    places = [1 + int((number + moments.random()) * rehearsal.events / kills) for number in range(kills)]
    moments.shuffle(places)
    for place in places:
        yield Action("kill", place)


def _arguments(command: WritingCommand, folder: Path) -> tuple[str, ...]:
    """The arguments for a folder in which the command may have been begun."""
    begun = command.again and any((folder / name).exists() for name in ("out/_job.json", "new.checkpoints"))
    parts = command.again and list(folder.glob("out*.parts"))
    return command.again if begun or parts else command.arguments


def as_before_or_after(seen: Seen, rehearsal: Rehearsal, command: WritingCommand) -> None:
    """AssertionError where something is there that was there neither before nor after the whole command."""
    assert seen.keys() == rehearsal.before.keys() | rehearsal.after.keys(), seen
    if command.one:
        assert seen in (rehearsal.before, rehearsal.after), (seen, rehearsal)
    for name, digest in seen.items():
        assert digest in (rehearsal.before.get(name), rehearsal.after.get(name)), (name, seen, rehearsal)


def repeat(server: CommandServer, command: WritingCommand, folder: Path, rehearsal: Rehearsal) -> None:
    """Give the command again: its result is right; and nothing else is left in the folder, where it had something to do."""
    if command.once and command.see(folder) == rehearsal.after:
        return
    age(folder)
    ended = server.run(_arguments(command, folder), folder)
    _require_done(ended, command)
    seen = command.see(folder)
    assert seen == rehearsal.after, (seen, rehearsal.after)
    if ended.code == 0:
        assert names(folder) == rehearsal.files, names(folder) ^ rehearsal.files


def _require_done(ended: Ended, command: WritingCommand) -> None:
    """It has done its work, or says that it was done before."""
    if ended.code:
        assert ended.code == 2, ended
        assert command.already in ended.said, ended.said


def fresh(server: CommandServer, command: WritingCommand, stock: Path, folder: Path) -> None:
    """The folder as the command finds it; always at the same path, which some results hold."""
    shutil.rmtree(folder, ignore_errors=True)
    take(stock, folder, *command.stock)
    if command.before:
        ended = server.run(command.before, folder)
        assert ended.code == 0, ended.said


def age(folder: Path) -> None:
    """Let everything that a killed process left be older."""
    then = time.time() - OLD
    for path in folder.rglob(".*"):
        for inner in [*path.rglob("*"), path]:
            os.utime(inner, (then, then), follow_symlinks=False)


def names(folder: Path) -> frozenset[str]:
    """Paths of all files and folders below."""
    return frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
