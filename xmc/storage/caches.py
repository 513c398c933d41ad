"""The user's cache: where it is, and how a folder in it is kept below a size."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["LEFT_BEHIND_AFTER", "keep_below", "mark_used", "user_cache"]

LEFT_BEHIND_AFTER = 3600.0
"""Seconds after which a temporary file that was not written any more is one that a killed process left."""


def user_cache() -> Path:
    """The directory for what may be made again: XMC_CACHE, or `xmc` in XDG_CACHE_HOME, or ~/.cache/xmc. It need not exist.

    Raises RuntimeError where none of these is known.
    """
    named = os.environ.get("XMC_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xmc"


def mark_used(file: Path) -> None:
    """Let a file of a cache count as used now. Nothing where that is not allowed."""
    with contextlib.suppress(OSError):
        os.utime(file)


def keep_below(directory: Path, pattern: str, most_bytes: int) -> None:
    """Remove those files of a cache that were used longest ago, until the rest take `most_bytes` at most.

    pattern: of the names of the cache's files, which are written by `atomic_file`; no other file is touched, but what killed
    processes left of writing them. A process that has a removed file open, or memory-mapped, reads on. What cannot be removed
    stays, and another process may remove files at the same time.
    """
    used: list[tuple[float, int, Path]] = []
    for file in directory.glob(pattern):
        with contextlib.suppress(OSError):
            status = file.stat()
            used.append((status.st_mtime, status.st_size, file))
    total = sum(size for _, size, _ in used)
    for _, size, file in sorted(used):
        if total <= most_bytes:
            break
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
            total -= size
    for left in directory.glob(f".{pattern}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_BEHIND_AFTER:
                left.unlink(missing_ok=True)
