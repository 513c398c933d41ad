"""Where the words of a text are."""

from __future__ import annotations

import re
from array import array

import numpy as np
import numpy.typing as npt

__all__ = ["word_blocks", "word_spans"]

LONGEST_WORD = 64
"""Number of characters; a longer run without blanks, as of a script that writes none, counts as several words."""
BLOCK = 65_536
"""Number of characters that `word_blocks` cuts a text into, about."""
_WORD = re.compile(rf"\S{{1,{LONGEST_WORD}}}")


def word_spans(text: str) -> npt.NDArray[np.int64]:
    """The first character of each word and the one behind its last, int64 [n, 2]."""
    places = array("q")
    for word in _WORD.finditer(text):
        places.extend(word.span())
    return np.frombuffer(places, np.int64).reshape(-1, 2) if places else np.zeros((0, 2), np.int64)


def word_blocks(text: str) -> npt.NDArray[np.int64]:
    """Spans of about `BLOCK` characters that no word of a text goes beyond, int64 [n, 2]; blanks between them are left out."""
    words = word_spans(text)
    if not len(words):
        return words
    number = words[:, 0] // BLOCK
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    ends = np.append(starts[1:], len(words)) - 1
    return np.stack([words[starts, 0], words[ends, 1]], axis=1)
