"""A process that has imported torch and the other libraries once, and forks a child for each command of `xmc`, and each
script.

A child imports `xmc` itself and runs it as `python` does, with the standard streams, environment and folder of the
program that asked for it; the seconds that the libraries take to import are what it saves. The process that forks computes
nothing, so no library has a pool of threads that the child would wait for.

    python warm_process.py SOCKET    forks until it is killed
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from exit_codes import exit_code_of

__all__ = ["warm_commands"]

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
CLIENT = """#!{python} -SE
import json, os, signal, socket, sys

line = socket.socket(socket.AF_UNIX)
line.connect({address!r})
socket.send_fds(line, [b"x"], [0, 1, 2])
line.sendall(json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode() + b"\\n")
answers = line.makefile()
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""
"""A program that asks for a child, and ends as it does."""


@functools.cache
def warm_commands() -> Path:
    """A folder with the programs `xmc`, and `script`, which takes the path of one and its arguments.

    The process is started by the first call, and ends with that which called.
    """
    folder = tempfile.TemporaryDirectory(prefix="warm-")
    address = str(Path(folder.name, "socket"))
    for client in (Path(folder.name, "xmc"), Path(folder.name, "script")):
        client.write_text(CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
        client.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    atexit.register(folder.cleanup)
    atexit.register(server.kill)
    return Path(folder.name)


def _serve(address: str) -> None:
    sys.path.pop(0)  # the folder of this file, which a command does not have
    for name in LIBRARIES:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            line, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _keep(line)
            line.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _keep(line: socket.socket) -> None:
    """Fork the child, tell its number and how it ended, and kill it where nobody listens any more."""
    _, streams, _, _ = socket.recv_fds(line, 1, 3)
    arguments, environment, folder = json.loads(line.makefile().readline())
    pid = os.fork()
    if pid == 0:
        line.close()
        _run(arguments, environment, folder, streams)
    line.sendall(f"{pid}\n".encode())
    for number in streams:
        os.close(number)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            with contextlib.suppress(OSError):
                line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        if select.select([line], [], [], 0.003)[0]:
            os.kill(pid, signal.SIGKILL)


def _run(arguments: list[str], environment: dict[str, str], folder: str, streams: list[int]) -> None:
    """Run the command, and end as a program does."""
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
        code = exit_code_of(lambda: _program(Path(arguments[0]).name, arguments[1:]))
        threading._shutdown()  # type: ignore[attr-defined]  # threads that are not daemons end first
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _program(program: str, arguments: list[str]) -> None:
    if program == "xmc":
        sys.argv = ["xmc", *arguments]
        runpy.run_module("xmc", run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[:0] = arguments, os.environ.get("PYTHONPATH", "").split(":")
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
