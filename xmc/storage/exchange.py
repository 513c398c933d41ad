"""Two directories that swap their names, and the one without a name that a killed process may leave where that takes steps."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from xmc.errors import StoreError, cause_in_words
from xmc.storage.locks import hold, release
from xmc.storage.temporaries import aside_of, left_of

__all__ = ["exchange", "restore"]


def exchange(first: Path, second: Path) -> None:
    """Swap the names of two directories: in one step with Linux's renameat2(RENAME_EXCHANGE), elsewhere with three renames.

    `first` is the temporary one. A process that is killed between the three renames leaves what was at `second` under a name
    of `aside_of`, from where `restore` takes it. OSError where the system cannot; what was at `second` is there again then.
    """
    if exchange_at_once(first, second):
        return
    aside = aside_of(second)
    second.replace(aside)
    try:
        first.replace(second)
    except OSError:
        aside.replace(second)
        raise
    aside.replace(first)


def exchange_at_once(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the system cannot, and nothing is done then."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2 is not None and renameat2(here, os.fsencode(first), here, os.fsencode(second), flag) == 0


def restore(path: Path) -> None:
    """Give a directory its name `path` again where a process was killed while it replaced it, and nothing has the name.

    A process that is replacing it at this moment is waited for. StoreError where the system does not let it be renamed.
    """
    while not os.path.lexists(path):
        try:
            left = [(entry.stat().st_ctime_ns, entry) for entry in left_of(path, aside=True) if entry.is_dir()]
            if not left:
                return
            _, latest = max(left)
            held = hold(latest)
        except FileNotFoundError:  # another process went on
            continue
        try:
            if not os.path.lexists(path) and latest.is_dir():
                latest.rename(path)
        except OSError as error:
            raise StoreError(
                f"{path} was being replaced when the process that did it ended. What was there is {latest}, and cannot be "
                f"renamed ({cause_in_words(error)}); rename it to {path.name}."
            ) from error
        finally:
            release(held)
