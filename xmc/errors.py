"""Every error that xmc raises on purpose. A message is a sentence that names the file, line, value and the remedy."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

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
    "missing_package",
    "require_package",
]


class XMCError(Exception):
    """Base of all errors raised by xmc; the command line prints it as one sentence and exits with code 2.

    again: options with which a command, given again, is likely to do without the error; the command line proposes it.
    """

    def __init__(self, *message: object, again: Sequence[str] = ()) -> None:
        super().__init__(*message)
        self.again = tuple(again)


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
