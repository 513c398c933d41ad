"""Files that are read as a whole, such as configurations and manifests: regular ones, of bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from xmc.errors import StoreError, XMCError, boundary

__all__ = ["MOST_BYTES", "read_text", "require_regular"]

MOST_BYTES = 256 << 20
"""Bytes of a file that is read as a whole, unless fewer are named: what a manifest of a million files takes."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def require_regular(file: Path) -> os.stat_result:
    """The status of a file. OSError where there is none, ValueError for what may never begin or end, such as a pipe."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise ValueError(f"it is {kind}, and not a file")
    return status


def read_text(
    file: Path, kind: type[XMCError] = StoreError, what: str = "", remedy: str = "", most: int = MOST_BYTES
) -> str:
    """The text of a file in UTF-8, of at most `most` bytes.

    kind: class of the error for a file that cannot be read, is larger, or no file. what: a sentence without its end, which the
    cause follows; by default "FILE cannot be read". remedy: a further sentence.
    """
    with boundary(kind, what or f"{file} cannot be read", remedy):
        require_regular(file)
        with file.open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it has more than {most:,} bytes")
        return content.decode("utf-8")
