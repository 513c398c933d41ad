"""How much memory a program takes at most, in a process of its own.

`ru_maxrss` does not say it: it begins at what the process took that started this one, such as the tests with all they hold.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

__all__ = ["number_printed"]

PEAK = """
from pathlib import Path

def peak() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

"""


def number_printed(program: str, *arguments: object) -> int:
    """What a program prints, in which `peak()` is the most memory so far, in MiB. Skips where the system has no /proc."""
    if sys.platform != "linux":
        pytest.skip("/proc is missing, which says what a process took at most; it is of Linux alone")
    command = [sys.executable, "-c", PEAK + program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
