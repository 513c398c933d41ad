"""Arrays in a zip file, as numpy writes them: what a header says is held against the bytes that follow it."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from xmc.storage.small_files import require_regular

__all__ = ["require_members_hold_their_arrays"]

MOST_TIMES = 1100
"""Times the size of a packed member that it has unpacked, at most: deflate reaches 1,032."""


def require_members_hold_their_arrays(file: Path) -> None:
    """Raise ValueError for an array whose header says more values than its member of the zip file holds, and for a member that
    says more bytes than it can be unpacked to, before numpy makes room for them; what numpy and zipfile raise at others."""
    require_regular(file)
    with zipfile.ZipFile(file) as members:
        for member in members.infolist():
            if not member.filename.endswith(".npy"):
                continue
            if member.file_size > MOST_TIMES * max(1, member.compress_size):
                raise ValueError(f"{member.filename} says that it is {member.file_size:,} bytes unpacked")
            with members.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                first = version == (1, 0)
                header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                shape, _, dtype = header(stream)
            if math.prod(shape) * max(1, dtype.itemsize) > member.file_size or min(shape, default=0) < 0:
                raise ValueError(f"{member.filename} says {list(shape)} values, and has {member.file_size:,} bytes")
