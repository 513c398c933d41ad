"""The words of a text as the static encoder sums them, so that each has an exact share of the embedding."""

from __future__ import annotations

import itertools
import re

from xmc.encoders.static.normalising import normalised

__all__ = ["pairs_of_words", "words_of_text"]

_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+")


def words_of_text(text: str) -> list[str]:
    """The words of a text, repeats included, normalised as for hashing (xmc.encoders.static.hashing).

    >>> words_of_text("A boat, with two hulls")
    ['a', 'boat', 'with', 'two', 'hulls']
    """
    data, (start, end) = normalised([text])
    return [word.decode() for word in _WORD.findall(data[start:end].tobytes())]


def pairs_of_words(words: list[str]) -> list[str]:
    """Each two neighbouring words as a text."""
    return [f"{first} {second}" for first, second in itertools.pairwise(words)]
