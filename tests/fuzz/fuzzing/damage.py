"""Bytes damaged at random, knowing nothing of what they mean: bits, numbers, pieces, lengths, places."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

__all__ = ["Random", "damaged", "replaced_number"]

Random = random.Random
LONGEST = 1 << 20
"""Bytes that a damaged input has at most, unless it had more before."""
PIECES = [
    *(b'"', b'""', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-1", b"1e400", b"99999999999999999999", b"\\ud800", b"'"),
    *(b"__label__", b" ", b"\xc3\xa9", b"\xf0\x9f\x9c\x9a", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x1b[2J", b"\xe2\x80\xae"),
    *(b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff" * 8, b"1000000000", b"&a ", b"*a", b"!!", b"- ", b"#", b"../"),
]  # fmt: skip
NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    64,
    127,
    128,
    255,
    256,
    1000,
    65535,
    65536,
    10**6,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
]
NUMBERS += [2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
SIZES = ("<B", "<H", "<I", "<I", "<I", "<Q", "<Q", "<d", "<f")


def damaged(content: bytes, chance: Random) -> bytes:
    """Some content with one to four changes."""
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        content = chance.choice(CHANGES)(content, chance)
    return content


def replaced_number(content: bytes, chance: Random, start: int = 0, end: int | None = None) -> bytes:
    """One number between two places, of 1 to 8 bytes and at a multiple of its size, becomes another one."""
    form = chance.choice(SIZES)
    width = struct.calcsize(form)
    end = len(content) if end is None else min(end, len(content))
    if end - start < width:
        return content
    place = start + chance.randrange((end - start) // width) * width
    return content[:place] + _number(content[place : place + width], form, chance) + content[place + width :]


def _number(before: bytes, form: str, chance: Random) -> bytes:
    if form in ("<d", "<f"):
        value = chance.choice([float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e30, 1e-40])
        return struct.pack(form, value)
    (old,) = struct.unpack(form, before)
    step = chance.choice([1, 2, 4, 8, 64, 256])
    new = chance.choice(
        [chance.choice(NUMBERS), old + step, old - step, old * 2, -old, old ^ (1 << chance.randrange(64))]
    )
    return struct.pack(form, new % (1 << 8 * len(before)))


def _piece(content: bytes, chance: Random) -> bytes:
    """A piece is put somewhere, beside what is there or in its place; now and then many times."""
    start = chance.randrange(len(content) + 1)
    length = chance.choice([1, 1, 2, 8, 64, 1000])
    piece = chance.choice([chance.choice(PIECES), chance.randbytes(length), content[start : start + length], b""])
    piece *= chance.choice([1] * 8 + [50])
    return content[:start] + piece + content[start + chance.choice([0, length]) :]


def _flip(content: bytes, chance: Random) -> bytes:
    if not content:
        return content
    flipped = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 16])):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _cut(content: bytes, chance: Random) -> bytes:
    """The beginning or the end is gone, or something in the middle."""
    start = chance.randrange(len(content) + 1)
    end = chance.randint(start, len(content))
    return chance.choice([content[:start], content[start:], content[:start] + content[end:]])


def _repeat(content: bytes, chance: Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    end = chance.randint(start, min(len(content), start + 1000))
    more = content[start:end] * chance.choice([1, 1, 1, 20])
    return content[:end] + more + content[end:] if len(content) + len(more) <= LONGEST else content


def _exchange(content: bytes, chance: Random) -> bytes:
    """Two stretches change places."""
    a, b, c = sorted(chance.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


CHANGES: list[Callable[[bytes, Random], bytes]] = [*[_piece] * 5, _flip, _flip, _cut, _repeat, _exchange]
CHANGES += [replaced_number, replaced_number]
