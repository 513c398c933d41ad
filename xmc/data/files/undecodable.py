"""Texts that cannot be written as UTF-8, and what is said of them."""

from __future__ import annotations

__all__ = ["undecodable", "with_encoding"]

USUAL = "cp1252"
"""The encoding of most text files that are not UTF-8; it reads Latin-1 too."""
_SUCH_AS = f"such as --encoding {USUAL}, which reads Latin-1 too"


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
