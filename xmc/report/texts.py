"""When two texts say the same, by their letters alone."""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher

__all__ = ["NEARLY", "SHORTEST", "canonical", "contains", "cut", "nearly_equal", "words"]

NEARLY = 0.9
"""Texts are nearly equal where twice the matching characters, divided by all characters of both, is as much."""
SHORTEST = 3
"""A label text with fewer letters is found in a query by chance."""
COMPARED = 500
"""Characters of a text that are compared: what they differ in later makes them no less alike."""


def canonical(text: str) -> str:
    """Without what does not change the meaning: compatible forms of letters, case, and how words are separated.

    >>> canonical("Sail-Boat  ") == canonical("sail boat")
    True
    """
    return re.sub(r"[\s\-_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def nearly_equal(first: str, second: str) -> bool:
    """Whether two canonical texts, neither of them empty, are equal or have a `difflib` ratio of at least NEARLY.

    >>> nearly_equal("sailing boat", "sailing boats"), nearly_equal("sailing boat", "motor boat")
    (True, False)
    """
    if not first or not second:
        return False
    first, second = first[:COMPARED], second[:COMPARED]
    if first == second:
        return True
    if 2 * min(len(first), len(second)) < NEARLY * (len(first) + len(second)):
        return False
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    return matcher.quick_ratio() >= NEARLY and matcher.ratio() >= NEARLY


def words(text: str) -> list[str]:
    """Words, without case and punctuation."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def contains(query: list[str], label: list[str]) -> bool:
    """Whether the words of a label stand in a query, all and one after the other.

    >>> contains(words("A fast sailing boat."), words("sailing boat")), contains(words("a boathouse"), words("boat"))
    (True, False)
    """
    joined = " ".join(label)
    return len(joined) >= SHORTEST and f" {joined} " in f" {' '.join(query)} "


def cut(text: str, most: int) -> str:
    """The first characters of a text, with an ellipsis where there are more."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
