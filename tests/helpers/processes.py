"""Processes of tests: programs run by torchrun, which talk through gloo, and processes that are stopped to look at them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TESTS = Path(__file__).parent


def torchrun(processes: int, program: Sequence[str]) -> list[str]:
    """The command that runs `program` (a file or -m module, and arguments) in so many processes of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*launcher, *program]


def environment() -> dict[str, str]:
    """One thread a process, and this folder's modules at hand."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}


def run(processes: int, program: Sequence[str], timeout: float = 300) -> str:
    """Run to the end and return what was written to standard output; an error carries both outputs."""
    done = subprocess.run(
        torchrun(processes, program), env=environment(), capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stopped_while(pid: int, condition: Callable[[], object]) -> bool:
    """Whether a condition holds that the process makes true for a moment: then it is stopped, and the condition still holds."""
    if not condition():
        return False
    _signal(pid, signal.SIGSTOP)
    while _is_running(pid):
        time.sleep(0.001)
    if condition():
        return True
    _signal(pid, signal.SIGCONT)
    return False


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.kill(pid, number)


def _is_running(pid: int) -> bool:
    """Whether a thread of the process has not come to a halt yet, which takes a moment after SIGSTOP; on Linux only."""
    states = []
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            states.append(file.read_text().rpartition(")")[2].split()[0])
    return any(state not in "tTZX" for state in states)
