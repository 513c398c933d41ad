"""The messages of an Arrow IPC file or stream, walked by their lengths: whether all of them are there, and no more."""

from __future__ import annotations

import struct

import pyarrow as pa

__all__ = ["IPC_FILE", "require_whole_ipc"]

IPC_FILE = b"ARROW1"
"""What an Arrow IPC file begins and ends with; a stream does not."""
_CONTINUATION = 0xFFFFFFFF
_DICTIONARY, _RECORD_BATCH = 2, 3
_RATIOS = {0: 255, 1: 32_768}
"""Bytes that a byte may stand for, by codec: LZ4, and Zstandard, whose smallest block has 4 bytes and stands for 128 KiB."""
_BUFFER = 16
"""Bytes of an entry of the list of a batch's buffers: place and length."""
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
"""Places of fields in the table of a message."""
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
        content = opened.read_at(length, place + ahead)
        kind, body = _message(content)
        if body < 0 or place + ahead + length + body > size:
            raise ValueError(f"the message at byte {place:,} says {body:,} bytes, and {size:,} are all there are")
        if kind in (_DICTIONARY, _RECORD_BATCH):
            _require_possible_buffers(opened, content, kind, place + ahead + length, body)
        found += kind == _RECORD_BATCH
        place += ahead + length + body


def _message(content: bytes) -> tuple[int, int]:
    """The kind of a message, and the length of its body, from its flatbuffer. struct.error where it is none."""
    kind, body = _field(content, _HEADER_TYPE, "<B"), _field(content, _BODY_LENGTH, "<q")
    return (kind[1] if kind else 0), (body[1] if body else 0)


def _require_possible_buffers(opened: pa.NativeFile, content: bytes, kind: int, start: int, body: int) -> None:
    """Raise ValueError for a packed buffer that says more bytes than it can stand for: Arrow makes room for them first.

    start, body: place and length of the body of the message.
    """
    batch = _inner(content, _HEADER)
    if batch is not None and kind == _DICTIONARY:
        batch = _inner(content, 1, batch)
    packing = None if batch is None else _inner(content, 3, batch)
    buffers = None if packing is None else _inner(content, 2, batch)
    if packing is None or buffers is None:
        return
    codec = _field(content, 0, "<B", packing)
    ratio = _RATIOS.get(codec[1] if codec else 0, max(_RATIOS.values()))
    (count,) = struct.unpack_from("<I", content, buffers)
    if count > len(content) // _BUFFER:
        raise ValueError("a message names more buffers than it has room for")
    for number in range(count):
        place, length = struct.unpack_from("<qq", content, buffers + 4 + _BUFFER * number)
        if length < 8 or not 0 <= place <= body - length:
            continue  # empty, or out of the body, which the reader refuses
        (said,) = struct.unpack("<q", opened.read_at(8, start + place))
        if said > ratio * length:
            raise ValueError(f"a packed buffer says {said:,} bytes, which {length:,} cannot hold")


def _inner(content: bytes, number: int, table: int | None = None) -> int | None:
    """The place of the table or list that a field points to; None for one that is not set."""
    field = _field(content, number, "<I", table)
    return None if field is None else field[0] + field[1]


def _field(content: bytes, number: int, form: str, table: int | None = None) -> tuple[int, int] | None:
    """Place and value of a field of a table of a flatbuffer, by default its root; None for one that is not set."""
    if table is None:
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
