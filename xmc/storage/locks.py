"""Locks of files and directories between processes, which end with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["alone", "hold", "is_at", "release"]

fcntl: Any  # absent on Windows
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:
    fcntl = None

logger = logging.getLogger("xmc.storage")
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EINVAL)
"""What file systems say that have no locks, or none of a directory."""
_here = threading.local()


def hold(file: Path, wait: bool = True) -> int | None:
    """Lock a file or directory until `release`, or until the process ends; None where the system has no locks.

    wait: False raises BlockingIOError where another process, or another part of this one, has it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError) and error.errno in _WITHOUT_LOCKS:
            return None
        raise
    return descriptor


def release(held: int | None) -> None:
    """End a lock of `hold`, in processes that were forked since too."""
    if held is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_UN)
        os.close(held)


@contextlib.contextmanager
def alone(directory: str | Path, wait: bool = True) -> Iterator[None]:
    """While the block runs, no other thread or process that asks for this replaces a stored directory.

    A thread that is in such a block may enter another one for the same directory. Where there is no directory, nothing is
    locked. wait: False raises BlockingIOError where it is held.
    """
    held_here: set[str] = _here.__dict__.setdefault("directories", set())
    name = os.path.realpath(directory)
    if name in held_here:
        yield
        return
    held = _hold_what_stays(Path(directory), wait)
    held_here.add(name)
    try:
        yield
    finally:
        held_here.discard(name)
        release(held)


def is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file or directory is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _hold_what_stays(directory: Path, wait: bool) -> int | None:
    """The lock of the directory that has this name when it is locked, for another one may have been replaced meanwhile."""
    while True:
        try:
            try:
                held = hold(directory, wait=False)
            except BlockingIOError:
                if not wait:
                    raise
                logger.info("waiting for another process that writes %s", directory)
                held = hold(directory)
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # what is done with it says so
            return None
        if held is None or is_at(directory, held):
            return held
        release(held)
