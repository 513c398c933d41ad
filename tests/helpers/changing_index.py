"""A process that has imported everything, and forks one that works on a saved index for each line it reads. Prints its pid.

So that a test can kill many of them without waiting for imports. What it reads: the name of a program below and its
arguments, separated by tabs, or "end" and the pid of a process to wait for, whose exit code it prints.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xmc.errors import XMCError
from xmc.indexes import versions
from xmc.indexes.factory import build_index, load_index
from xmc.indexes.label_index import LabelIndex

DIMENSION, FIRST, ADDED, REMOVED = 16, 2000, 120, 100
SOURCE = "changes"


def vectors(count: int, seed: list[int]) -> Any:
    """Unit vectors around a few hundred centres, as label embeddings lie."""
    choose = np.random.default_rng(seed)
    centres = np.random.default_rng(77).normal(size=(200, DIMENSION))
    points = centres[choose.integers(0, len(centres), count)] + 0.5 * choose.normal(size=(count, DIMENSION))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def named(numbers: Any, names: bool) -> list[Any]:
    """The ids of labels by their numbers: strings or integers."""
    return [f"label {number}" for number in numbers] if names else [int(number) for number in numbers]


def numbers_of(ids: Any) -> Any:
    """The numbers of labels by their ids."""
    return np.array([int(str(label).removeprefix("label ")) for label in ids.tolist()], np.int64)


def block(change: int) -> tuple[Any, Any]:
    """Numbers and embeddings of the labels that a change adds; those that are there at first for change 0."""
    first, count = (FIRST + (change - 1) * ADDED, ADDED) if change else (0, FIRST)
    return np.arange(first, first + count), vectors(count, [change])


def gone(change: int, numbers: Any) -> Any:
    """Numbers of the labels that a change removes, out of those that are there."""
    return np.random.default_rng([change, 1]).choice(numbers, REMOVED, replace=False)


@cache
def state(changes: int) -> tuple[Any, Any]:
    """Numbers and embeddings of the labels after so many changes, in the order in which they came."""
    numbers, embeddings = block(changes)
    if not changes:
        return numbers, embeddings
    before, rows = state(changes - 1)
    kept = ~np.isin(before, gone(changes, before))
    return np.concatenate([before[kept], numbers]), np.concatenate([rows[kept], embeddings])


def changes_made(index: LabelIndex) -> int:
    """How many changes an index has seen: the last label is always one of the last change."""
    return int(numbers_of(index.ids[-1:])[0] - FIRST) // ADDED + 1


def start(design: str, names: bool, directory: Path) -> None:
    """Save an index without changes."""
    index = build_index(design, DIMENSION)
    numbers, embeddings = block(0)
    index.build(embeddings, named(numbers, names))
    index.save(directory, SOURCE)


def one_change(index: LabelIndex) -> int:
    """The next change to an index; its number."""
    change, names = changes_made(index) + 1, index.ids.dtype == object
    leaving = gone(change, numbers_of(index.ids))
    numbers, embeddings = block(change)
    index.add(embeddings, named(numbers, names))
    index.remove(named(leaving, names))
    return change


def keep_changing(directory: str, log: str) -> None:
    """Change, save and note the change, for ever: a line is in the log only after the save has returned."""
    versions.TAIL = 300  # the engine is extended at every third change; removed labels are forgotten after eight
    index = load_index(directory, SOURCE)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        change = one_change(index)
        index.save(directory, SOURCE)
        os.write(file, f"{change}\n".encode())
        os.fsync(file)


def change_with_full_disk(directory: str, log: str) -> None:
    """Change and save where no file can be longer than 100 kB; what comes of it goes to the log."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    index = load_index(directory, SOURCE)
    one_change(index)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        index.save(directory, SOURCE)
        Path(log).write_text("saved")
    except (OSError, RuntimeError, XMCError) as error:
        Path(log).write_text(f"{type(error).__name__}: {error}")


def two_contents(design: str) -> list[LabelIndex]:
    """Indexes over as many labels, with other ids and other embeddings."""
    found = []
    for number in (0, 1):
        index = build_index(design, DIMENSION)
        index.build(vectors(FIRST, [number, 2]), np.arange(FIRST) + number * FIRST)
        found.append(index)
    return found


def keep_replacing(design: str, directory: str) -> None:
    """Save one content over the other, for ever."""
    contents = two_contents(design)
    while True:
        for index in contents:
            index.save(directory)


def keep_loading(design: str, directory: str, log: str) -> None:
    """Load until a file "stop" lies beside the directory; what was seen goes to the log, a line a load."""
    contents = [(index.ids, index.embeddings) for index in two_contents(design)]
    queries = vectors(8, [9])
    with Path(log).open("w", encoding="utf-8", buffering=1) as seen:
        while not Path(directory).with_name("stop").exists():
            try:
                index = load_index(directory)
                same = [np.array_equal(index.ids, ids) for ids, _ in contents]
                rows = [np.array_equal(index.embeddings, embeddings) for _, embeddings in contents]
                scores = index.search(queries, 5, rescore=4)[1] if same == rows and any(same) else None
                whole = scores is not None and np.isfinite(scores).all()
                print(f"content {same.index(True)}" if whole else f"ids of {same}, embeddings of {rows}", file=seen)
            except Exception as error:  # whatever it is, the test shows it
                print(f"{type(error).__name__}: {error}", file=seen)


PROGRAMS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (keep_changing, change_with_full_disk, keep_replacing, keep_loading)
}


def main() -> None:
    for line in sys.stdin:
        name, *arguments = line.rstrip("\n").split("\t")
        if name == "end":
            print(os.waitstatus_to_exitcode(os.waitpid(int(arguments[0]), 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            PROGRAMS[name](*arguments)
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
