"""A process that has imported xmc and torch once, and forks a child that runs one command of `xmc` for each request.

So a command that is killed costs what it does, and not the seconds of imports; it has one thread of OpenMP, as no library may
have started threads before the fork. Started with the library of `write_events`, which ends children at chosen writes.

    python command_server.py    reads requests as lines of JSON, and answers each by one
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exit_codes import exit_code_of
from write_events import Action, arm, compiled, happened

__all__ = ["CommandServer", "Ended", "hub_variables"]

TESTS = Path(__file__).parent
MODULES = (
    "xmc.cli",
    "torch",
    "numpy",
    "pyarrow.parquet",
    "pyarrow.compute",
    "pyarrow.csv",
    "safetensors.torch",
    "scipy",
)
"""Imported before the first fork; what the first run of a command imports beyond is imported after it, for the next ones."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    code: its exit code, or minus the signal. said: both outputs. events: number of writes, see `write_events`; -1 where it was
    killed. imported: whether it imported what the server had not, as the first run of a command does.
    """

    code: int
    said: str
    events: int
    imported: bool

    @property
    def killed(self) -> bool:
        """Whether it was killed before its end."""
        return self.code == -signal.SIGKILL


class CommandServer:
    """Runs commands of `xmc`, each in a forked child, one at a time."""

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        """folder: for its log. variables: of the environment."""
        environment = {
            **os.environ,
            "LD_PRELOAD": compiled(),
            "PYTHONPATH": str(TESTS),
            "OMP_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "COLUMNS": "200",
            "NO_COLOR": "1",
            **(variables or {}),
        }
        self._errors = (folder / "server.log").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )

    def run(
        self,
        arguments: Sequence[str],
        watched: Path,
        action: Action | None = None,
        *,
        seconds: float | None = None,
        longest_file: int | None = None,
        user: int | None = None,
    ) -> Ended:
        """Run `xmc ARGUMENTS` in the folder `watched`, below which its writes are counted and `action` happens.

        seconds: after which it is killed. longest_file: bytes that a file may have (RLIMIT_FSIZE). user: whose rights it has.
        """
        request = {
            "arguments": list(arguments),
            "watched": str(watched.resolve()),
            "action": asdict(action or Action()),
            "seconds": seconds,
            "longest_file": longest_file,
            "user": user,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._errors.seek(0)
            raise AssertionError(f"the server of commands ended: {self._errors.read().decode()[-3000:]}")
        return Ended(*json.loads(answer))

    def close(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()
        self._errors.close()


def hub_variables(address: str, folder: Path) -> dict[str, str]:
    """What the client of the hub is told: where it is, where its cache is, and that it has plain files."""
    home = {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return {**home, "HF_ENDPOINT": address, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _serve() -> None:
    for name in MODULES:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        request = json.loads(line)
        said, says = os.pipe()
        learned, tells = os.pipe()
        gc.freeze()  # what is there already is not looked at, and so not copied, in the child
        pid = os.fork()
        if pid == 0:
            os.close(said)
            os.close(learned)
            _child(request, says, tells)
        os.close(says)
        os.close(tells)
        output, report = _all_of(pid, request["seconds"], said, learned)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        events, modules = json.loads(report) if code != -signal.SIGKILL and report else (-1, [])
        new = [name for name in modules if name not in sys.modules]
        for name in new:
            with contextlib.suppress(BaseException):
                importlib.import_module(name)
        assert threading.active_count() == 1, threading.enumerate()
        answers.write(json.dumps([code, output.decode(errors="replace"), events, bool(new)]) + "\n")
        answers.flush()


def _all_of(pid: int, seconds: float | None, *pipes: int) -> list[bytes]:
    """Everything that comes out of pipes whose other ends the child has, which is killed after some seconds."""
    end = None if seconds is None else time.monotonic() + seconds
    contents = dict.fromkeys(pipes, b"")
    left = set(pipes)
    while left:
        ready, _, _ = select.select(list(left), [], [], None if end is None else max(0.0, end - time.monotonic()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            end = None
        for pipe in ready:
            block = os.read(pipe, 1 << 16)
            contents[pipe] += block
            if not block:
                left.discard(pipe)
                os.close(pipe)
    return [contents[pipe] for pipe in pipes]


def _child(request: dict[str, Any], says: int, tells: int) -> None:
    """Run the command, and tell the number of its writes and the modules that it imported."""
    code = 1
    try:
        os.chdir(request["watched"])
        os.dup2(says, 1)
        os.dup2(says, 2)
        os.close(says)
        # The streams of the server remember what they were opened on, and that they were read.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
        _limit(request)
        sys.argv = ["xmc", *request["arguments"]]
        from xmc.cli import main

        arm(request["watched"], Action(**request["action"]))
        code = exit_code_of(main)
        threading._shutdown()  # type: ignore[attr-defined]  # as at the end of a program: threads that are not daemons end first
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(tells, "w") as report:
            json.dump([happened(), list(sys.modules)], report)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _limit(request: dict[str, Any]) -> None:
    if request["longest_file"] is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["longest_file"], resource.RLIM_INFINITY))
    if request["user"] is not None:
        os.setgroups([])
        os.setgid(request["user"])
        os.setuid(request["user"])


if __name__ == "__main__":
    _serve()
