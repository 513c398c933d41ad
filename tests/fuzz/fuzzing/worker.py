"""A child process that runs cases one after the other, and says of each what came of it before the next begins."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import resource
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fuzzing.folders import Changes, apply, files_of, repair, restore, times_of
from fuzzing.targets import Case, Target
from xmc.errors import LONGEST_MESSAGE, XMCError
from xmc.shown import visible

__all__ = ["SOUND", "Outcome", "prepare", "run_case", "work"]

SOUND = ("sound", "refused")
"""What may come of a case."""
MEMORY = 3 << 30
"""Bytes of address space that a case may take beside what the process has before it."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case, in a word: "sound", "refused", "no memory" (refused because there was too little of it), "lost",
    "traceback"; of the parent: "crash", "time".

    said: of the last three and of refusals, what was said. where: the place in xmc that a failure points at.
    """

    word: str
    said: str = ""
    where: str = ""


def prepare(target: Target, folder: Path) -> None:
    """Write the sound inputs of a target, and what its readers need."""
    for name in ("sample", "place"):
        (folder / name).mkdir(parents=True)
    if target.prepare is not None:
        target.prepare(folder / "place")
    target.write(folder / "sample")


def work(target: Target, folder: Path, seeds: Iterable[int], answers: int, saved: list[Changes]) -> None:
    """Run the cases of some seeds, and write a line of JSON for each into the descriptor `answers`.

    saved: changes that were found before; a negative seed is the number of one, counted from -1.
    """
    _limit()
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context((folder / f"stderr-{os.getpid()}").open("w"))
        os.dup2(errors.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        faulthandler.enable(errors)
        copy, place = folder / f"case-{os.getpid()}", folder / f"place-{os.getpid()}"
        shutil.copytree(folder / "place", place)
        shutil.copytree(folder / "sample", copy)
        files = files_of(copy)
        times = times_of(copy)
        for seed in seeds:
            os.write(answers, f'{{"begun": {seed}}}\n'.encode())
            outcome, changes = run_case(target, copy, files, place, seed, saved)
            if outcome.word not in SOUND:
                keep(folder / "failed" / str(seed), changes, outcome)
            line = {"seed": seed, "word": outcome.word, "said": outcome.said[:3000], "where": outcome.where}
            os.write(answers, json.dumps(line).encode() + b"\n")
            restore(copy, files, times)
            times = times_of(copy)
        for left in (copy, place):
            shutil.rmtree(left, ignore_errors=True)


def changes_of(target: Target, files: dict[str, bytes], seed: int, saved: list[Changes]) -> tuple[Changes, Random]:
    """What the case of a seed changes, and the chance that goes on from there."""
    chance = Random(seed)
    return (saved[-1 - seed] if seed < 0 else target.damaged(files, chance)), chance


def run_case(
    target: Target, folder: Path, files: dict[str, bytes], place: Path, seed: int, saved: list[Changes]
) -> tuple[Outcome, Changes]:
    """Damage the folder by a seed, read it, and say what came of it."""
    changes, chance = changes_of(target, files, seed, saved)
    apply(folder, changes)
    if target.repaired:
        repair(folder)
    try:
        target.read(Case(folder, changes, files, chance, place, target.repaired))
    except XMCError as error:
        return _refusal(error), changes
    except AssertionError as error:
        return Outcome("lost", traceback.format_exc(), f"{type(error).__name__}: {error}"[:200]), changes
    except BaseException as error:
        return Outcome("traceback", traceback.format_exc(), _place(error)), changes
    return Outcome("sound"), changes


def _refusal(error: XMCError) -> Outcome:
    said = str(error)
    if len(said) > LONGEST_MESSAGE or visible(said) != said or not said:  # unassigned characters are not obeyed
        return Outcome("traceback", f"the message is not one line of at most {LONGEST_MESSAGE} characters: {said!r}")
    if "not enough memory" in said:
        return Outcome("no memory", said, _place(error))
    return Outcome("refused", said)


def _place(error: BaseException) -> str:
    """The type of an error, and the last line of xmc that it passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    cause = error.__cause__ or error
    return f"{type(cause).__name__} at " + (f"{_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?")


def _is_ours(file: str) -> bool:
    return (
        any(f"/{room}/" in file for room in ("xmc", "indexes", "kernels", "training")) and "site-packages" not in file
    )


def _short(file: str) -> str:
    return "/".join(file.split("/")[-3:])


def keep(folder: Path, changes: Changes, outcome: Outcome) -> None:
    """Write a failing input: the files that were changed, and what was said."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in changes.items():
        file = folder / "changed" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content or b"")
    (folder / "said.txt").write_text(f"{outcome.word} {outcome.where}\n{outcome.said}\n", errors="replace")


def _limit() -> None:
    """Bound the memory, write no core files, and say nothing."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
