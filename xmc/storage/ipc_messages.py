"""The messages of an Arrow IPC file or stream, walked by their lengths: whether all of them are there, and no more."""

from __future__ import annotations

import struct

import pyarrow as pa

__all__ = ["IPC_FILE", "require_whole_ipc"]

IPC_FILE = b"ARROW1"
"""What an Arrow IPC file begins and ends with; a stream does not."""
_CONTINUATION = 0xFFFFFFFF
_RECORD_BATCH = 3
_HEADER_TYPE, _BODY_LENGTH = 1, 3
"""Places of two fields in the table of a message."""
_BLOCKS = (2, 3)
"""Places of the lists of dictionaries and of record batches in the table of a footer."""
_BLOCK = 24
"""Bytes of an entry of such a list, which begins with the place of its message."""
_FIRST = 8
"""Where the first message of a file is."""
_PADDING = 64
"""Bytes that may lie between the last message of a file and its footer."""


def require_whole_ipc(opened: pa.NativeFile, batches: int | None) -> None:
    """Raise ValueError for a file that lacks a part, or has one that would not be read: messages whose lengths reach out of it,
    another number of batches than `batches`, something behind the end.

    batches: number of batches that a file's footer names; None for a stream, which must end with the mark of its end.
    """
    size = opened.size()
    if batches is None:
        place, _ = _walk(opened, 0, size)
        if place != size:
            raise ValueError(f"the stream ends at byte {place:,}, and {size - place:,} bytes follow")
        return
    (footer,) = struct.unpack("<i", opened.read_at(4, size - len(IPC_FILE) - 4))
    first = _first_message(opened, size - len(IPC_FILE) - 4 - footer, footer)
    if first is None and not batches:
        return
    place, found = _walk(opened, first or _FIRST, size)
    rest = size - place - footer - 4 - len(IPC_FILE)
    if found != batches or not 0 <= rest < _PADDING:
        raise ValueError(
            f"its end names {batches:,} batches, but there are {found:,}, and {max(0, rest):,} bytes that are of none"
        )


def _first_message(opened: pa.NativeFile, place: int, footer: int) -> int | None:
    """Where the messages of a file begin: behind its beginning, or where its footer says that they do; None where it has none.

    Polars writes the schema at the beginning without the length of its message; readers take it from the footer.
    """
    if struct.unpack("<I", opened.read_at(4, _FIRST))[0] == _CONTINUATION:
        return _FIRST
    content = opened.read_at(footer, place)
    starts = []
    for number in _BLOCKS:
        field = _field(content, number, "<I")
        if field is None:
            continue
        vector = field[0] + field[1]
        (count,) = struct.unpack_from("<I", content, vector)
        if count > len(content) // _BLOCK:
            raise ValueError("its footer names more messages than it holds")
        starts += [struct.unpack_from("<q", content, vector + 4 + _BLOCK * block)[0] for block in range(count)]
    return min(starts, default=None)


def _walk(opened: pa.NativeFile, place: int, size: int) -> tuple[int, int]:
    """Where the messages end, and the number of record batches among them."""
    found = 0
    while True:
        opened.seek(place)
        start = opened.read(8)
        if len(start) < 4:
            raise ValueError(f"it ends at byte {size:,}, without the mark of its end")
        length, after = struct.unpack("<II", start.ljust(8, b"\0"))
        ahead = 4
        if length == _CONTINUATION:
            if len(start) < 8:
                raise ValueError(f"it ends at byte {size:,}, within a message")
            length, ahead = after, 8
        if length == 0:
            return place + ahead, found
        if place + ahead + length > size:
            raise ValueError(
                f"the message at byte {place:,} says a length of {length:,}, and {size:,} bytes are all there are"
            )
        kind, body = _message(opened.read_at(length, place + ahead))
        if body < 0 or place + ahead + length + body > size:
            raise ValueError(f"the message at byte {place:,} says {body:,} bytes, and {size:,} are all there are")
        found += kind == _RECORD_BATCH
        place += ahead + length + body


def _message(content: bytes) -> tuple[int, int]:
    """The kind of a message, and the length of its body, from its flatbuffer. struct.error where it is none."""
    kind, body = _field(content, _HEADER_TYPE, "<B"), _field(content, _BODY_LENGTH, "<q")
    return (kind[1] if kind else 0), (body[1] if body else 0)


def _field(content: bytes, number: int, form: str) -> tuple[int, int] | None:
    """Place and value of a field of the table that a flatbuffer holds; None for one that is not set."""
    (table,) = struct.unpack_from("<I", content, 0)
    (back,) = struct.unpack_from("<i", content, table)
    fields = table - back
    if fields < 0:
        raise ValueError("a message points out of itself")
    (size,) = struct.unpack_from("<H", content, fields)
    where = 4 + 2 * number
    if where + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", content, fields + where)
    return (table + offset, int(struct.unpack_from(form, content, table + offset)[0])) if offset else None
