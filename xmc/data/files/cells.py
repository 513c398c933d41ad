"""What a cell means: the one rule by which a value of a file becomes a uid, a text, labels or numbers, or is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from xmc.data.files.table import Kind
from xmc.data.files.undecodable import undecodable

__all__ = ["CELLS", "CellProblem", "first_unsplittable", "one_label", "split_cell"]

_WRITTEN_LIST = re.compile(r"""[\[({]\s*(['"]).*\1\s*,?\s*[\])}]|\[\s*\]|\[[\s\d.,+-]*\d[\s\d.,+-]*\]""", re.DOTALL)
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class CellProblem(Exception):
    """A cell that cannot be used. reason: a short phrase, by which rows are counted. message: a sentence about the cell."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


def _uid(value: Any, separator: str | None) -> str | None:
    """A string, or a whole number as it is written."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _string(value, "uid", "a string or a whole number")


def _text(value: Any, separator: str | None) -> str | None:
    """A string."""
    return None if value is None else _string(value, "text", "a string")


def _labels(value: Any, separator: str | None) -> list[str]:
    """A list of strings or whole numbers; a string, cut by `separator` if there is one; a whole number."""
    if value is None:
        return []
    if isinstance(value, str):
        _string(value, "label", "a string")
        return one_label(value) if separator is None else split_cell(value, separator)
    if not isinstance(value, list):
        value = [value]
    return [_label(item) for item in value]


def _label(item: Any) -> str:
    if item is None:
        raise CellProblem("null among the labels", "there is a null among the labels; leave it out.")
    if isinstance(item, int) and not isinstance(item, bool):
        return str(item)
    return _string(item, "label", "a string or a whole number")


def one_label(value: str) -> list[str]:
    """A string that nothing cuts: it is one label, or none where it is empty.

    Raises CellProblem for a list that was written as a string, such as "['sea', 'ship']".
    """
    if _is_written_list(value):
        raise _written_list(value, ";")
    return [value] if value else []


def split_cell(value: str, separator: str) -> list[str]:
    """The parts of a string between separators, without blanks at their ends; empty ones are left out.

    Raises CellProblem for a string in brackets, such as "['sea', 'ship']": it is a list that was written as a string, and its
    brackets and quotes are no part of the labels.
    """
    bare = value.strip()
    if (bare.startswith("[") and bare.endswith("]")) or _is_written_list(bare):
        raise _written_list(bare, separator)
    return [part for piece in value.split(separator) if (part := piece.strip())]


def first_unsplittable(values: Iterable[str], separator: str) -> str | None:
    """The first of some labels that `split_cell` may not give back from a cell with the separator between; None for none."""
    opening = closing = None
    for value in values:
        try:
            if split_cell(value, separator) != [value]:
                return value
        except CellProblem:
            return value
        opening = opening or (value if value.startswith(("[", "(", "{")) else None)
        closing = closing or (value if value.endswith(("]", ")", "}")) else None)
    return None if closing is None else opening


def _is_written_list(value: str) -> bool:
    """Whether a string is a list as Python writes it: of quoted strings or of numbers, in brackets."""
    bare = value.strip()
    return bare[:1] in ("[", "(", "{") and _WRITTEN_LIST.fullmatch(bare) is not None


def _written_list(value: str, separator: str) -> CellProblem:
    return CellProblem(
        "list written as a string",
        f"{_short(value.strip())} is a list that was written as a string; write its items with {separator!r} between, without "
        f"brackets and quotes, or write lists into a JSON lines or Parquet file.",
    )


def _relevance(value: Any, separator: str | None) -> list[float] | None:
    """A list of numbers, or a number; a string of numbers, cut by `separator`."""
    if value is None:
        return None
    if isinstance(value, str):
        value = split_cell(value, separator or ",")
    if not isinstance(value, list):
        value = [value]
    return [_number(item, "relevance") for item in value] or None


def _flag(value: Any, separator: str | None) -> bool | None:
    """True or false, 1 or 0, or the words yes and no; None for nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    word = str(value).strip().lower()
    if word not in _FLAGS:
        raise CellProblem("bad flag", f"{_short(value)} is neither true nor false.")
    return _FLAGS[word]


def _tokens(value: Any, separator: str | None) -> list[int] | None:
    """A list of whole numbers."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(_is_token(item) for item in value):
        raise CellProblem("bad tokens", f"the tokens {_short(value)} are no list of whole numbers.")
    return value


def _is_token(item: Any) -> bool:
    return item is None or (isinstance(item, int) and not isinstance(item, bool) and abs(item) < 1 << 62)


def _embedding(value: Any, separator: str | None) -> list[float] | None:
    """A list of numbers."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise CellProblem("embedding that is no list", f"the embedding {_short(value)} is no list of numbers.")
    return [math.nan if item is None else _number(item, "embedding") for item in value]


def _any(value: Any, separator: str | None) -> str | None:
    """A string as it is; anything else as JSON."""
    if value is None or isinstance(value, str):
        return value if value is None or undecodable(value) is None else value.encode("utf-8", "replace").decode()
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a lone surrogate, or a whole number of more than 64 bits
        return json.dumps(value)


def _number(item: Any, what: str) -> float:
    if isinstance(item, bool) or not isinstance(item, int | float | str):
        raise CellProblem(f"bad {what}", f"the {what} {_short(item)} is no number.")
    try:
        return float(item)
    except (ValueError, OverflowError):
        raise CellProblem(f"bad {what}", f"the {what} {_short(item)} is no number.") from None


def _string(value: Any, what: str, wanted: str) -> str:
    if not isinstance(value, str):
        raise CellProblem(f"{what} that is no string", f"the {what} {_short(value)} is not {wanted}.")
    wrong = undecodable(value)
    if wrong is not None:
        raise CellProblem(f"{what} that is not UTF-8", f"the {what} {wrong}.")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


CELLS: dict[Kind, Callable[[Any, str | None], Any]] = {
    "uid": _uid,
    "text": _text,
    "labels": _labels,
    "relevance": _relevance,
    "flag": _flag,
    "tokens": _tokens,
    "embedding": _embedding,
    "any": _any,
}
"""By kind of column, what a cell (a value as JSON has it) becomes, given the separator of labels. They raise CellProblem."""
