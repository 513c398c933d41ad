"""A process that has imported torch and the other libraries once, and forks a child for each command of `xmc`.

A child imports `xmc` itself and runs it as `python -m xmc` does, with its own standard streams, environment and folder; the
seconds that the libraries take to import are what it saves. The process that forks computes nothing, so no library has a pool
of threads that the child would wait for.

    python warm_process.py    reads requests as lines of JSON, and answers each by the exit code
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["WarmProcess"]

LIBRARIES = (
    "torch",
    "torch._dynamo",
    "numba",
    "pandas",
    "pyarrow.acero",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.parquet",
    "scipy.sparse",
    "scipy.special",
    "scipy.stats",
    "sklearn.linear_model",
    "safetensors.torch",
    "faiss",
    "pydantic",
    "rich.console",
    "rich.progress",
    "rich.table",
    "typer",
    "yaml",
)


class WarmProcess:
    """Runs commands of `xmc`, one at a time. Started by the first, and ended with the process that made it."""

    def __init__(self) -> None:
        """Nothing is started yet."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: str, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What `python -m xmc ARGUMENTS` printed, and its exit code. folder: where it runs. given: its standard input."""
        with self._lock, tempfile.TemporaryDirectory() as streams:
            files = [Path(streams, name) for name in ("in", "out", "err")]
            files[0].write_text(given or "", encoding="utf-8")
            request = [list(arguments), dict(environment), folder, list(map(str, files))]
            server = self._started()
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline())
            out, err = (file.read_text(encoding="utf-8") for file in files[1:])
        return subprocess.CompletedProcess([sys.executable, "-m", "xmc", *arguments], code, out, err)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)
            atexit.register(self._process.kill)
        return self._process


def _serve() -> None:
    sys.path.pop(0)  # the folder of this file, which a command does not have
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _child(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _child(arguments: list[str], environment: dict[str, str], folder: str, streams: list[str]) -> None:
    """Run the command, and end as a program does."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        for number, file in enumerate(streams):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
        sys.argv = ["xmc", *arguments]
        code = _ended()
        threading._shutdown()  # type: ignore[attr-defined]  # threads that are not daemons end first
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _ended() -> int:
    """The exit code of the command."""
    try:
        runpy.run_module("xmc", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
