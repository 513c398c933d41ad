"""The hash functions of the static encoder's features, each written once for arrays of numpy and for numba's loops.

The feature of a hashed word, bigram or n-gram is tagged(mixed(salted(state, kind)), kind). None calls another: numba cannot
follow. Every argument and result is uint64: an array, or inside a compiled loop a number. Products wrap around at 2^64;
numpy warns of that for single numbers, and is given arrays alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "BASIS",
    "KINDS",
    "KIND_BITS",
    "LONGEST_GRAM",
    "MARK",
    "PRIME",
    "mixed",
    "salted",
    "scrambled",
    "step",
    "tagged",
]

KINDS = ("word", "bigram", "char3", "char4", "char5")
"""Kinds of features; a feature's kind is its low bits."""
KIND_BITS = 3
LONGEST_GRAM = 5
"""Code points of the longest character n-gram, the marks at the ends of a word among them."""
MARK = np.uint64(32)
"""The byte before and after a word which n-grams are cut from: a blank, which no word holds."""

BASIS, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
"""Of FNV-1a with 64 bits, which hashes the bytes of words and n-grams."""
_GOLDEN, _ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_FIRST, _SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_ONE, _KIND, _WIDE = np.uint64(1), np.uint64(KIND_BITS), np.uint64(32)
_HALF, _TOP = np.uint64(33), np.uint64(35)


def step(state: Any, byte: Any) -> Any:
    """The state of FNV-1a after one more byte."""
    return (state ^ byte) * PRIME


def mixed(state: Any) -> Any:
    """Finaliser of MurmurHash3 (64 bit): every input bit changes every output bit with probability one half."""
    state = (state ^ (state >> _HALF)) * _FIRST
    state = (state ^ (state >> _HALF)) * _SECOND
    return state ^ (state >> _HALF)


def salted(state: Any, kind: Any) -> Any:
    """A state that differs between the kinds of features, given by their place in `KINDS`."""
    return state ^ ((kind + _ONE) * _GOLDEN)


def tagged(state: Any, kind: Any) -> Any:
    """The feature of a state, below 2^32: 29 bits of the state above those of its kind."""
    return ((state >> _TOP) << _KIND) | kind


def scrambled(feature: Any, seed: Any) -> Any:
    """A hash of a feature: modulo the table's rows its row, for the seed 1; modulo the weights' slots its slot, for 0."""
    value = ((feature + _ONE) * _GOLDEN) ^ (seed * _ODD)
    value = (value ^ (value >> _WIDE)) * _ODD
    return value ^ (value >> _WIDE)
