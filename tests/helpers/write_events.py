"""The library `write_events.c`, compiled, and what it is told to do."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Action", "arm", "compiled", "happened"]

SOURCE = Path(__file__).with_suffix(".c")
ACTIONS = ("count", "kill", "fail", "fill", "trace")


@dataclass(frozen=True)
class Action:
    """What happens while a command writes below a folder.

    kind: "count" nothing; "kill" SIGKILL at event number `at`; "fail" that event alone fails with the error `error`; "fill" so
    does each that needs room, from that event on; "trace" all is written to the file `log` of the folder `copies`.
    """

    kind: str = "count"
    at: int = 0
    error: int = 0
    copies: str = ""


@functools.cache
def compiled() -> str:
    """Path of the compiled library; skips where it cannot be made."""
    if sys.platform != "linux":
        pytest.skip("writes are watched by a library that is loaded before glibc, on Linux")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("a C compiler is missing (cc, gcc or clang), by which writes are watched")
    library = Path(tempfile.mkdtemp(prefix="write-events-")) / "write_events.so"
    done = subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"the library by which writes are watched does not compile here: {done.stderr[-300:]}")
    return str(library)


def arm(folder: str, action: Action) -> None:
    """In a process that was started with the library: let it happen from now on."""
    log = f"{action.copies}/log"
    _loaded().write_events_arm(
        folder.encode(), ACTIONS.index(action.kind), action.at, action.error, log.encode(), action.copies.encode()
    )


def happened() -> int:
    """Number of events since `arm`."""
    return int(_loaded().write_events_count())


def _loaded() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.write_events_arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_char_p,
    ]
    library.write_events_count.restype = ctypes.c_long
    return library
