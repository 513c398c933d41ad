"""Fingerprints: SHA-256 in hexadecimal of files, of JSON values, and of several of these together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["fingerprint_of", "fingerprint_of_json", "sha256_file", "sha256_quietly"]


LARGE = 1 << 28
"""Bytes of a file from which on it takes long enough to hash that progress is reported."""
BLOCK = 1 << 20
"""Bytes that are read together."""


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; progress is reported for a large one."""
    size = path.stat().st_size
    if size < LARGE:
        return sha256_quietly(path)
    from xmc.progress import progress  # which loads the package rich

    with progress(f"hashing {path.name}", size, unit="bytes") as line:
        return sha256_quietly(path, line.advance)


def sha256_quietly(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """As `sha256_file`, and nothing is shown. advance: called with the number of bytes of each block."""
    digest, block = hashlib.sha256(), bytearray(BLOCK)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(view[:count])
            if advance is not None:
                advance(count)
    return digest.hexdigest()


def fingerprint_of(digests: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """The fingerprint of several things together, given the digest of each by name.

    A mapping is taken in the order of its names, so that its own order does not matter; pairs in the order given.
    """
    pairs = sorted(digests.items()) if isinstance(digests, Mapping) else digests
    return hashlib.sha256("".join(f"{name}:{digest}\n" for name, digest in pairs).encode()).hexdigest()


def fingerprint_of_json(value: Any, sort_keys: bool = False) -> str:
    """The fingerprint of JSON values; with `sort_keys` the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=sort_keys).encode()).hexdigest()
