"""Temporary names beside what is being written, and what killed writers left under such names."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from xmc.storage.locks import hold, release

__all__ = ["ABANDONED_AFTER", "aside_of", "left_of", "move_over", "remove_abandoned", "temporary_of"]

ABANDONED_AFTER = 60.0
"""Seconds after which something temporary that no process holds is what a killed process left."""
_UNFINISHED, _ASIDE = "tmp", "old"


def temporary_of(path: Path) -> Path:
    """A new name beside `path`, for what is to take its place."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{_UNFINISHED}")


def aside_of(path: Path) -> Path:
    """A new name beside `path`, for what is at it while something else takes its place."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{_ASIDE}")


def left_of(path: Path, aside: bool) -> Iterator[Path]:
    """What is under names of `aside_of`, or else of `temporary_of`, beside `path`; of names made of such a name, too.

    A file whose writer writes it under a temporary name by itself, and is given one, has both.
    """
    name, unfinished = re.escape(path.name), rf"\.[^.]+\.{_UNFINISHED}"
    names = rf"\.{name}\.[^.]+\.{_ASIDE}" if aside else rf"\.{name}{unfinished}|\.\.{name}{unfinished}{unfinished}"
    pattern = re.compile(names, re.DOTALL)
    with contextlib.suppress(OSError):
        yield from [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]


def remove_abandoned(path: Path, moved: Sequence[str] = ()) -> None:
    """Remove what killed processes left of writing `path`: what nobody holds, and what is not new.

    moved: patterns of folders that belong to whatever is at `path`: what was replaced may have them still, and they are moved
    over.
    """
    for left in [*left_of(path, aside=False), *left_of(path, aside=True)]:
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime < ABANDONED_AFTER:
                continue
            held = hold(left, wait=False)
            if held is None:  # nobody knows who holds it
                continue
            try:
                if not left.is_dir():
                    left.unlink()
                    continue
                move_over(left, path, moved)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                release(held)


def move_over(source: Path, destination: Path, patterns: Sequence[str]) -> None:
    """Move folders of a directory into another one that has none of these names."""
    for pattern in patterns:
        for folder in source.glob(pattern):
            if folder.is_dir() and not folder.is_symlink() and not (destination / folder.name).exists():
                folder.replace(destination / folder.name)
