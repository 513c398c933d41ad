"""Text files as lines: unpacked where they are packed, in their encoding, without a byte-order mark."""

from __future__ import annotations

import io
from collections.abc import Iterator

from xmc.data.files.addresses import InputFile
from xmc.data.files.table import TextForm
from xmc.errors import DataError, boundary

__all__ = ["text_lines", "whole_text"]

_MARK = "\ufeff"
_MARKS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\x00\x00": "utf-32",  # stands before that of UTF-16, with which it begins
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_BUFFER = 1 << 20
_WHOLE = "Is the file complete, and its encoding right?"


def text_lines(file: InputFile, form: TextForm, newline: str = "", cut: bool = False) -> Iterator[str]:
    """The lines of a file with their ends.

    newline: what ends a line; "" for a line feed, a carriage return, or both. cut: give the beginning of a line that is too
    long, without a line end, in place of an error.

    Bytes that are not of the encoding come as lone surrogates, which `undecodable` finds: a broken line does not end a file.
    Raises DataError where the file cannot be read to its end, and for a line that is longer than the form allows.
    """
    number, longest = 0, form.longest_line
    with (
        boundary(DataError, lambda: f"{file.address} cannot be read past line {number:,}", _WHOLE),
        file.stream() as raw,
    ):
        stream = io.BufferedReader(raw, _BUFFER)
        encoding = form.encoding or _shown(stream.peek(4))
        text = io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline)
        while line := text.readline(longest + 2):  # with its end
            number += 1
            if len(line) > longest and len(line.rstrip("\r\n")) > longest:
                if not cut:
                    raise _too_long(file, number, longest)
                line = _cut(line, text, longest)
            yield line.removeprefix(_MARK) if number == 1 else line


def _too_long(file: InputFile, line: int, longest: int) -> DataError:
    twice = str(2 * longest)
    return DataError(
        f"{file.address}, line {line:,}: the line is longer than {longest:,} characters; is the file damaged? "
        f"--max-line {twice} allows twice as many.",
        again=("--max-line", twice),
    )


def _cut(line: str, text: io.TextIOWrapper, longest: int) -> str:
    """The beginning of a line; the rest is read, and left out."""
    end = line
    while end and not end.endswith(("\r", "\n")):
        end = text.readline(longest)
    return line[:longest]


def whole_text(file: InputFile, form: TextForm) -> str:
    """All lines of a file. Raises DataError as `text_lines`, and for a text that is longer than the form allows."""
    lines: list[str] = []
    length = 0
    for line in text_lines(file, form):
        lines.append(line)
        length += len(line)
        if length > form.longest_record:
            raise DataError(
                f"{file.address} is a text of more than {form.longest_record:,} characters; leave it out, or allow more by "
                f"--max-line {2 * form.longest_line}."
            )
    return "".join(lines)


def _shown(start: bytes) -> str:
    """The encoding that the first bytes of a file show."""
    return next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), "utf-8")
