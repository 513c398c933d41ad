"""The command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from warm_process import warm_commands

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def xmc(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `xmc` with the arguments and return what it printed. options: of subprocess.run."""
    return subprocess.run(
        [str(warm_commands() / "xmc"), *map(str, arguments)],
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


_ONE_BY_ONE = """
import contextlib, io, json, sys
from xmc.cli import main
for arguments in json.load(sys.stdin):
    sys.argv = ["xmc", *arguments]
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def fail_each(*cases: tuple[Sequence[object], str]) -> None:
    """Each of several commands fails with its message (`fail`); they are run one after the other in one process."""
    commands = [[str(argument) for argument in arguments] for arguments, _ in cases]
    done = subprocess.run(
        [sys.executable, "-c", _ONE_BY_ONE], input=json.dumps(commands), capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    for command, (code, out, err), (_, message) in zip(commands, said, cases, strict=True):
        fail(subprocess.CompletedProcess(command, code, out, err), message)
