"""The command line in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def xmc(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `xmc` with the arguments and return what it printed. options: of subprocess.run."""
    return subprocess.run(
        [sys.executable, "-m", "xmc", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        **options,  # type: ignore[call-overload]
    )


def fail(done: subprocess.CompletedProcess[str], message: str) -> None:
    """A user's mistake: exit code 2, one sentence on standard error, no traceback."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
