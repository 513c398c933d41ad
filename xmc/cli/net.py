"""What stands around every command: usage errors in visible words, mistakes as sentences, and a net below all of it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import typer
from rich.text import Text
from typer.core import TyperGroup

from xmc.cli.next_commands import after_error
from xmc.errors import ConfigError, XMCError
from xmc.faults import MISTAKE, tell, watch_threads
from xmc.progress import console as error_console
from xmc.shown import visible
from xmc.terminal import show_any_text

__all__ = ["Commands", "guarded"]

INTERRUPTED = 130
"""Exit code after Ctrl-C, 128 and the number of SIGINT."""
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's own base of what is wrong with a command line; it has no public name."""


class _Fault(Exception):
    """Around an error of a command that typer would take for the end of its input, or of its output."""


class Commands(TyperGroup):
    """The commands. What typer says of a command line is shown in visible words, and what it would swallow is not."""

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **options: Any) -> Any:
        """See typer. ConfigError for an argument that is not text: file systems know such names, and few libraries do."""
        for argument in args:
            if any("\ud800" <= character <= "\udfff" for character in argument):
                raise ConfigError(
                    f"The argument {argument!r} is not text in {sys.getfilesystemencoding()}; rename the file, or type it "
                    f"otherwise."
                )
        with _usage_in_visible_words():
            return super().make_context(info_name, args, *others, **options)

    def invoke(self, ctx: Any) -> Any:
        """See typer, which ends silently after EOFError and EPIPE, whosever they are."""
        with _usage_in_visible_words():
            try:
                return super().invoke(ctx)
            except EOFError as error:
                raise _Fault from error
            except OSError as error:
                if error.errno == errno.EPIPE and not _nobody_listens():
                    raise _Fault from error
                raise


def guarded(command: Callable[[], object]) -> NoReturn:
    """Run the command line, and exit: 0; 2 after a mistake of the user's, or a refusal of the machine's, in one sentence; 130
    after Ctrl-C; 70 after what nobody foresaw, with a report; or as the command says.
    """
    show_any_text()
    watch_threads()
    code: Any = 0
    try:
        command()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = _told(error)
    sys.exit(_flushed(code))


def _told(error: BaseException) -> int:
    """Say what went wrong; returns the exit code."""
    if isinstance(error, XMCError):
        with contextlib.suppress(OSError):
            error_console.print(Text.assemble(("error:", "red"), f" {error}"), highlight=False, soft_wrap=True)
            for proposed in after_error(error):
                error_console.print(Text(f"next: {proposed}"), highlight=False, soft_wrap=True)
        return MISTAKE
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return tell(error.__cause__ if isinstance(error, _Fault) and error.__cause__ is not None else error)


def _flushed(code: Any) -> Any:
    """The exit code, once standard output is written; where it cannot be, Python itself would show a traceback."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return code or 1  # as typer has it
        return code or tell(error)
    return code


def _nobody_listens() -> bool:
    """Whether standard output, or error, is a pipe that nobody reads from any more."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            poll.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


@contextlib.contextmanager
def _usage_in_visible_words() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        said = getattr(error, "message", None)
        if isinstance(said, str):
            error.message = visible(said.removeprefix("Value error, "))  # type: ignore[attr-defined]
        raise
