"""Every error that xmc raises on purpose. A message is a sentence that names the file, line, value and the remedy."""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "DependencyError",
    "InputError",
    "NotFiniteError",
    "StoreError",
    "TrainingError",
    "XMCError",
]


class XMCError(Exception):
    """Base of all errors raised by xmc; the command line prints it as one sentence and exits with code 2."""


class ConfigError(XMCError):
    """A configuration key is unknown, or a value has the wrong type or range."""


class DataError(XMCError):
    """A data file or data set is malformed or does not fit together."""


class InputError(XMCError):
    """An argument of a library call is of the wrong type, shape or value."""


class NotFiniteError(InputError):
    """Numbers hold NaN, or infinities that cancel."""


class StoreError(XMCError):
    """A saved run, index or cache is missing, truncated, edited or of another format version."""


class TrainingError(XMCError):
    """Training cannot go on: the loss is not a number any more."""


class DependencyError(XMCError):
    """An optional dependency is needed and is not installed; the message carries the command that installs it."""
