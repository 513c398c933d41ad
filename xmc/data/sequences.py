"""What is given as a list of values: checked, and taken as a list of Python's."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from xmc.data.arrow_objects import is_arrow, list_of_column
from xmc.errors import InputError

__all__ = ["in_order", "is_utf8", "require_query_text"]


def in_order(values: Any, wanted: str) -> list[Any]:
    """The values as a list, those of an Arrow array or a Series as well; InputError, which begins with `wanted`, for a bare
    string, a table, and for what has no order (a set, a mapping) or cannot be gone over."""
    if is_arrow(values):
        return list_of_column(values, wanted)
    try:
        if not isinstance(values, (str, bytes, Set, Mapping)):
            return list(values)
    except TypeError:
        pass
    raise InputError(f"{wanted}, but given is {values!r:.100}, of type {type(values).__name__}.")


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8, which a lone surrogate cannot."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def require_query_text(text: str, place: int, allow_empty: bool = False) -> None:
    """InputError for a text of a query that is not UTF-8, or is empty or white space, unless that is allowed.

    place: of the query in its list.
    """
    if not is_utf8(text):
        raise InputError(f"The text of query {place} cannot be written as UTF-8: {text!r:.100}. Correct it.")
    if not allow_empty and (not text or text.isspace()):
        raise InputError(
            f"The text of query {place} is empty, and an empty text has no labels; leave it out. (allow_empty=True "
            f"answers it all the same, with labels that mean nothing.)"
        )
