"""Files that are whole or absent, and small JSON files that are read whatever is in them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmc.errors import XMCError, boundary
from xmc.storage.locks import hold, release
from xmc.storage.temporaries import remove_abandoned, temporary_of

__all__ = ["MOST_BYTES_OF_JSON", "atomic_file", "parsed_json", "read_json", "sync"]

MOST_BYTES_OF_JSON = 1 << 24
"""Bytes of a JSON file that says what a directory holds, at most: a hundred thousand files."""


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it to `path`, on an exception remove it.

    An empty file is there when the block begins. What killed processes left of writing `path` is removed. OSError where it
    cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    temporary = temporary_of(path)
    temporary.touch()
    held = None
    try:
        held = hold(temporary)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        release(held)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(file: Path, kind: type[XMCError], remedy: str = "", most_bytes: int = MOST_BYTES_OF_JSON) -> Any:
    """The content of a JSON file. `kind` of error, with the remedy, for one that cannot be read.

    Refused are files of more than `most_bytes`, what is no UTF-8 or not JSON, what is nested too deeply, an object with the
    same key twice, and numbers that are not finite.
    """
    with boundary(kind, f"{file} cannot be read", remedy):
        if not stat.S_ISREG(file.stat().st_mode):
            raise ValueError("it is no file")
        with file.open("rb") as opened:
            content = opened.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ValueError(f"it has more than {most_bytes:,} bytes, which no such file has")
        return parsed_json(content)


def parsed_json(content: bytes) -> Any:
    """JSON in UTF-8; ValueError or RecursionError for what `read_json` refuses."""
    return json.loads(
        content.decode("utf-8"), object_pairs_hook=_without_repetition, parse_float=_finite, parse_constant=_no_number
    )


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return found


def _finite(number: str) -> float:
    found = float(number)
    if not math.isfinite(found):
        _no_number(number)
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text:.40} is no finite number")
