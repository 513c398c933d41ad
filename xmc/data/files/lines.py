"""Text files as lines: unpacked where they are packed, in their encoding, without a byte-order mark."""

from __future__ import annotations

import io
from collections.abc import Iterator

from xmc.data.files.addresses import InputFile
from xmc.data.files.table import BROKEN, TextForm
from xmc.errors import DataError

__all__ = ["text_lines", "undecodable", "with_encoding"]

_MARK = "\ufeff"
_MARKS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\x00\x00": "utf-32",  # stands before that of UTF-16, with which it begins
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_BUFFER = 1 << 20
USUAL = "cp1252"
"""The encoding of most text files that are not UTF-8; it reads Latin-1 too."""
_SUCH_AS = f"such as --encoding {USUAL}, which reads Latin-1 too"


def text_lines(file: InputFile, form: TextForm, newline: str = "") -> Iterator[str]:
    """The lines of a file with their ends.

    newline: what ends a line; "" for a line feed, a carriage return, or both.

    Bytes that are not of the encoding come as lone surrogates, which `undecodable` finds: a broken line does not end a file.
    Raises DataError where the file cannot be read to its end.
    """
    number = 0
    try:
        with file.stream() as raw:
            stream = io.BufferedReader(raw, _BUFFER)
            encoding = form.encoding or _shown(stream.peek(4))
            for line in io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline):
                number += 1
                yield line.removeprefix(_MARK) if number == 1 else line
    except BROKEN as error:
        raise DataError(
            f"{file.address} cannot be read past line {number:,}: {error}. Is the file complete, and its encoding right?"
        ) from error


def undecodable(text: str) -> str | None:
    """What is wrong with a text that cannot be written as UTF-8, as the end of a sentence; None for any other."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return (
                f"is not UTF-8 (byte 0x{code - 0xDC00:02x} after {text[max(0, error.start - 20) : error.start]!r}); name the "
                f"encoding of the file, {_SUCH_AS}"
            )
        return f"has half a surrogate pair (\\u{code:04x}), which is no character"
    return None


def with_encoding(message: str | None) -> tuple[str, ...]:
    """The options that read a file whose texts `undecodable` found fault with in a message; none for other messages."""
    return ("--encoding", USUAL) if message is not None and _SUCH_AS in message else ()


def _shown(start: bytes) -> str:
    """The encoding that the first bytes of a file show."""
    return next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), "utf-8")
