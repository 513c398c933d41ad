"""The features of the static encoder by whole arrays: the same numbers as xmc.encoders.static.hashing, without numba."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmc.encoders.static.formulas import BASIS, LONGEST_GRAM, MARK, PRIME, mixed, salted, step, tagged

__all__ = ["bags_of_features"]

Places = npt.NDArray[np.int64]
States = npt.NDArray[np.uint64]

FEW = 4
"""Runs of bytes that are so few are hashed one by one, in plain integers: one word may be as long as its text."""
WRAP = (1 << 64) - 1


def bags_of_features(data: npt.NDArray[np.uint8], offsets: Places) -> tuple[npt.NDArray[np.uint64], Places]:
    """The features of n normalised texts, uint64, and where those of each text begin and end, int64 [n + 1].

    data, offsets: as of xmc.encoders.static.normalising. The features of a text come in no particular order.
    """
    first, last, text_of_word = _words(data, offsets)
    words = _hashed(data, first, last)
    pairs = np.flatnonzero(text_of_word[1:] == text_of_word[:-1]) + 1
    bigrams = mixed(words[pairs - 1]) ^ words[pairs]
    features = [_tagged(words, 0), _tagged(bigrams, 1)]
    texts = [text_of_word, text_of_word[pairs]]
    for length, grams, word in _grams(data, first, last):
        features.append(_tagged(grams, length - 1))
        texts.append(text_of_word[word])
    text_of_feature = np.concatenate(texts)
    order = np.argsort(text_of_feature, kind="stable")
    counts = np.bincount(text_of_feature, minlength=len(offsets) - 1)
    return np.concatenate(features)[order], np.concatenate([[0], np.cumsum(counts)])


def _words(data: npt.NDArray[np.uint8], offsets: Places) -> tuple[Places, Places, Places]:
    """The first byte of each word, the byte behind it, and its text: runs of ASCII letters, digits and non-ASCII bytes."""
    start, end = int(offsets[0]), int(offsets[-1])
    if start == end:
        return offsets[:0], offsets[:0], offsets[:0]
    read = data[start:end]
    inside = (
        (read >= 128) | ((read >= 97) & (read <= 122)) | ((read >= 48) & (read <= 57)) | ((read >= 65) & (read <= 90))
    )
    before = np.concatenate([[False], inside[:-1]])
    begins = offsets[:-1]
    before[begins[begins < end] - start] = False  # a word ends with its text
    first = np.flatnonzero(inside & ~before)
    after = np.concatenate([~inside[1:] | ~before[1:], [True]])
    last = np.flatnonzero(inside & after) + 1
    text_of_word = np.searchsorted(offsets, first + start, side="right") - 1
    return first + start, last + start, text_of_word


def _grams(data: npt.NDArray[np.uint8], first: Places, last: Places) -> list[tuple[int, States, Places]]:
    """For each length the hashes of the n-grams of that many code points, marks among them, and the word of each."""
    sizes = last - first + 2
    ends = np.cumsum(sizes)
    word_of_byte = np.repeat(np.arange(len(first)), sizes)
    marked = np.full(len(word_of_byte) + 1, MARK, np.uint8)
    body = np.arange(len(word_of_byte)) - np.repeat(ends - sizes, sizes) - 1
    is_body = (body >= 0) & (body < np.repeat(sizes - 2, sizes))
    marked[:-1][is_body] = data[(np.repeat(first, sizes) + body)[is_body]]
    points = np.flatnonzero((marked & 0xC0) != 0x80)  # first bytes of code points; the last one ends the last word
    word_of_point = word_of_byte[points[:-1]]
    count = np.bincount(word_of_point, minlength=len(first))
    found = []
    for length in range(3, LONGEST_GRAM + 1):
        begin = np.arange(max(0, len(word_of_point) - length + 1))
        word = word_of_point[begin]
        begin = begin[(word_of_point[begin + length - 1] == word) & (length < count[word])]
        found.append((length, _hashed(marked, points[begin], points[begin + length]), word_of_point[begin]))
    return found


def _hashed(data: npt.NDArray[np.uint8], first: Places, last: Places) -> States:
    """FNV-1a of each run of bytes from `first` to `last`, uint64 [runs]."""
    states = np.full(len(first), BASIS)
    active, place = np.arange(len(first)), first.copy()
    while True:
        active = active[place[active] < last[active]]
        if len(active) <= FEW:
            break
        states[active] = step(states[active], data[place[active]].astype(np.uint64))
        place[active] += 1
    for run in active.tolist():
        state = int(states[run])
        for byte in data[place[run] : last[run]].tobytes():
            state = (state ^ byte) * int(PRIME) & WRAP
        states[run] = state
    return states


def _tagged(states: States, kind: int) -> States:
    place = np.full(len(states), kind, np.uint64)
    tags: States = tagged(mixed(salted(states, place)), place)
    return tags
