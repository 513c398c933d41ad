"""Programs run by torchrun: real processes that talk through gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
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
