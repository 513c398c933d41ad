"""The command line with one more command, which fails as it is told: `python faulty_command.py fail KIND`."""

from __future__ import annotations

import os
import sys
import tempfile
import threading

import typer

from xmc.cli import app, main
from xmc.errors import XMCError


def _in_a_thread() -> None:
    thread = threading.Thread(target=lambda: _raise(ValueError("in a thread")))
    thread.start()
    thread.join()


def _to_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"x")


def _raise(error: BaseException) -> None:
    raise error


KINDS = {
    "value": lambda: _raise(ValueError("a \x1b[31mvalue\n of hf_abcdefghijklmnopqrstuvwxyz")),
    "memory": lambda: bytearray(1 << 62),
    "end-of-file": lambda: _raise(EOFError("too early")),
    "pipe": _to_nobody,
    "group": lambda: _raise(type("PanicException", (BaseException,), {})("of Rust")),
    "disk": lambda: _raise(OSError(28, "No space left on device", "/x/y")),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "exit": lambda: _raise(SystemExit(5)),
    "typer": lambda: _raise(typer.Exit(3)),
    "mistake": lambda: _raise(XMCError("a \u202emistake")),
    "thread": _in_a_thread,
    "many-lines": lambda: [print("line") for _ in range(100_000)],
}


@app.command("fail")
def fail(kind: str, reports: str = typer.Option("", help="Folder of temporary files.")) -> None:
    """Fail."""
    if reports:
        tempfile.tempdir = reports
    KINDS[kind]()


if __name__ == "__main__":
    sys.argv[0] = "xmc"
    main()
