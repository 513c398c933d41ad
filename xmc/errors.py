"""Every error that xmc raises on purpose. A message is a sentence that names the file, line, value and the remedy."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
from collections.abc import Callable, Iterator, Sequence

from xmc.shown import one_line

__all__ = [
    "ConfigError",
    "ConflictError",
    "DataError",
    "DependencyError",
    "InputError",
    "NotFiniteError",
    "StoreError",
    "TrainingError",
    "XMCError",
    "boundary",
    "cause_in_words",
    "missing_package",
    "require_package",
]

LONGEST_MESSAGE = 2000
"""Characters of an error's message at most; what is left out stands in its `args`."""
LONGEST_CAUSE = 300
"""Characters of what another library says of its error, at most."""


class XMCError(Exception):
    """Base of all errors raised by xmc; the command line prints it as one sentence and exits with code 2.

    The message is one line, and what a terminal would obey in it is made visible, whatever the names and values that it quotes.

    again: options with which a command, given again, is likely to do without the error; the command line proposes it.
    """

    def __init__(self, *message: object, again: Sequence[str] = ()) -> None:
        super().__init__(*message)
        self.again = tuple(again)

    def __str__(self) -> str:
        return one_line(super().__str__(), LONGEST_MESSAGE)


class ConfigError(XMCError):
    """A configuration key is unknown, or a value has the wrong type or range."""


class DataError(XMCError):
    """A data file or data set is malformed or does not fit together."""


class InputError(XMCError):
    """An argument of a library call is of the wrong type, shape or value."""


class ConflictError(InputError):
    """A change names a label that is there already, or one that is not there: it was made for other labels than there are."""


class NotFiniteError(InputError):
    """Numbers hold NaN, or infinities that cancel."""


class StoreError(XMCError):
    """A saved run, index or cache is missing, truncated, edited or of another format version."""


class TrainingError(XMCError):
    """Training cannot go on: the loss is not a number any more."""


class DependencyError(XMCError):
    """An optional dependency is needed and is not installed; the message carries the command that installs it."""


@contextlib.contextmanager
def boundary(kind: type[XMCError], what: str | Callable[[], str], remedy: str = "") -> Iterator[None]:
    """Turn whatever a file system, a parser or a native library raises inside the block into one error of xmc.

    Stand it at every place where bytes from outside are read or written, and nowhere else: inside of it a mistake of our own
    looks like a damaged file. Errors of xmc pass as they are, and so do KeyboardInterrupt and other requests to stop.

    kind: class of the error. what: a sentence without its end that names the file or place, such as "FILE cannot be read"; the
    cause follows it; a function of none where it says how far a long reading came. remedy: a further sentence.
    """
    try:
        yield
    except XMCError:
        raise
    except BaseException as error:
        if (
            not isinstance(error, Exception) and type(error).__name__ != "PanicException"
        ):  # of a library written in Rust
            raise
        said = what if isinstance(what, str) else what()
        raise kind(f"{said}: {cause_in_words(error)}.{' ' if remedy else ''}{remedy}") from error


def cause_in_words(error: BaseException) -> str:
    """What went wrong, in one short line without its full stop, of an exception of any library."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError):
        said = f"{said} is missing"
    return one_line(said, LONGEST_CAUSE).rstrip(". ") or type(error).__name__


def require_package(name: str, why: str, install: str) -> None:
    """Raise DependencyError, with the command that installs it, where an optional package is not there.

    name: what is imported. why: a clause that the sentence begins with. install: the missing packages themselves, as pip is
    told them; an extra of this package would need its own name on an index.
    """
    if importlib.util.find_spec(name) is None:
        raise missing_package(name, why, install)


def missing_package(name: str, why: str, install: str) -> DependencyError:
    """The error where an optional package could not be imported; its parameters are those of `require_package`."""
    return DependencyError(f"{why}, which needs the package {name}: pip install {install}")
