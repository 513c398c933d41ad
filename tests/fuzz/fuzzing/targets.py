"""What is fuzzed: each target says how a sound input is written, how it is damaged, how it is read, and what must hold then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fuzzing.damage import Random
from fuzzing.folders import Changes, damaged_folder
from fuzzing.formats import damaged_file

__all__ = ["TARGETS", "Case", "Target", "register"]


@dataclass(frozen=True)
class Case:
    """One input: the folder that holds it, damaged; what was changed; chance for whatever a reader chooses.

    files: the sound content of the folder, by name. repaired: whether lists of checksums were made right
    again. place: a folder of the target's own, kept from one case to the next.
    """

    folder: Path
    changes: Changes
    files: Mapping[str, bytes]
    chance: Random
    place: Path
    repaired: bool = False

    @property
    def only(self) -> Path:
        """The one file of a target of alternatives."""
        (name,) = self.changes
        return self.folder / name


@dataclass(frozen=True)
class Target:
    """A format, or a boundary, with its sound inputs.

    write: writes them into an empty folder, which is one input; of `alternatives`, each file is an input by itself.
    read: reads an input. It raises an error of xmc where it refuses, AssertionError where something is lost without a word, and
        returns otherwise.
    prepare: writes what readers need beside, once, into a folder of its own.
    repaired: whether lists of checksums are made right after the damage.
    slow: number of cases of it for each 2,000 of others, where a case is dear.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Case], object]
    prepare: Callable[[Path], object] | None = None
    alternatives: bool = False
    repaired: bool = False
    slow: int = 2000

    def damaged(self, files: Mapping[str, bytes], chance: Random) -> Changes:
        """What a case changes of the sound files."""
        if not self.alternatives:
            return damaged_folder(files, chance)
        name = chance.choice(sorted(files))
        return {name: damaged_file(name, files[name], chance)}


TARGETS: dict[str, Target] = {}
"""By name, in the order in which they run."""


def register(target: Target) -> None:
    """Add a target; its name is new."""
    assert target.name not in TARGETS, target.name
    TARGETS[target.name] = target
