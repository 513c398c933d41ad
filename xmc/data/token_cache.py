"""Token caches: tokenise a corpus once into a memory-mapped Arrow file keyed by content."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.data.tokens import RaggedTokens
from xmc.errors import StoreError, boundary
from xmc.progress import progress
from xmc.storage.arrow import read_columns, write_arrow_file
from xmc.storage.caches import keep_below, mark_used, user_cache
from xmc.storage.temporaries import remove_abandoned

__all__ = ["MOST_BYTES", "TokenCache", "cached_tokens", "read_tokens", "write_tokens"]

logger = logging.getLogger("xmc.data.tokens")
Featurize = Callable[[Sequence[str]], RaggedTokens]
Timed = Callable[[str], AbstractContextManager[None]]
CHUNK = 8192
MOST_BYTES = 8 << 30
"""Largest size of the user's cache of tokens, 8 GiB: a token takes two bytes, and 100 million texts of titles some 4 GB."""
NOT_KEPT = "Tokens are not kept for later runs"
REMEDY = "Set token_cache to a directory that can be written, or to null to do without."


@dataclass
class TokenCache:
    """A folder of files of tokens, by the content of the texts.

    directory: created when it is first written. most_bytes: size of its files together, above which those go that were used
    longest ago; None for no bound. Tokens of a bounded cache are read into memory, as another machine may remove their file;
    otherwise they are memory-mapped. optional: whether to go on without it where it cannot be written.
    """

    directory: Path
    most_bytes: int | None = None
    optional: bool = False
    failed: bool = False
    """Whether an optional cache could not be written, so that it is not tried again."""

    @classmethod
    def of_user(cls) -> TokenCache | None:
        """The folder `tokens` of the user's cache, bounded and optional; None, with a warning, where it cannot be written."""
        try:
            directory = user_cache() / "tokens"
            directory.mkdir(parents=True, exist_ok=True)
            if os.access(directory, os.W_OK | os.X_OK):
                return cls(directory, MOST_BYTES, optional=True)
            problem = f"{directory} may not be written"
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
            problem = str(error)
        logger.warning("%s: %s. %s", NOT_KEPT, problem, REMEDY)
        return None

    def file(self, texts: pa.ChunkedArray | Sequence[str], features_key: str) -> Path:
        """The file for the tokens of some texts: its name is a hash of `features_key` and of all texts."""
        return self.directory / f"tokens-{_key(texts, features_key)}.arrow"

    def read(self, file: Path) -> RaggedTokens | None:
        """What the cache holds under the name, verified; None where it holds nothing, or something damaged.

        What killed processes left of writing it is removed: a file that is there is not written again.
        """
        if not file.exists():
            return None
        remove_abandoned(file)
        try:
            tokens = read_tokens(file, mapped=self.most_bytes is None)
        except StoreError as error:
            logger.warning("%s It is built again.", error)
            return None
        mark_used(file)
        return tokens

    def keep(self, tokens: RaggedTokens, file: Path) -> RaggedTokens:
        """Write tokens, and return them as the cache gives them. Those that are larger than a bounded cache are not written.

        Raises StoreError when the file cannot be written, unless the cache is optional: then that is a warning, once.
        """
        if self.failed or (
            self.most_bytes is not None and tokens.values.nbytes + tokens.offsets.nbytes > self.most_bytes
        ):
            return tokens
        try:
            write_tokens(tokens, file)
        except StoreError as error:
            if not self.optional:
                raise
            self.failed = True
            logger.warning("%s: %s %s", NOT_KEPT, error, REMEDY)
            return tokens
        if self.most_bytes is None:
            return read_tokens(file)
        keep_below(self.directory, "tokens-*.arrow", self.most_bytes)
        return tokens


def _untimed(activity: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def cached_tokens(
    texts: pa.ChunkedArray | Sequence[str],
    featurize: Featurize,
    features_key: str,
    cache: TokenCache | None,
    description: str = "texts",
    timed: Timed = _untimed,
) -> RaggedTokens:
    """Tokens of all texts, from the cache where it holds them, else computed and (with a cache) stored.

    A file's content is verified when it is opened, and built again when it does not match. Two processes that build the same
    file at once both end with a whole one. A null text is an empty one. timed: a context for an activity, by name.
    Raises StoreError when the cache cannot be written, unless it is optional.
    """
    tokenising = f"tokenising {description}"
    if cache is None:
        with timed(tokenising):
            return _build(texts, featurize, description)
    with timed("token cache"):
        file = cache.file(texts, features_key)
        tokens = cache.read(file)
    if tokens is not None:
        return tokens
    with timed(tokenising):
        tokens = _build(texts, featurize, description)
    with timed("token cache"):
        return cache.keep(tokens, file)


def write_tokens(tokens: RaggedTokens, file: Path) -> None:
    """Write an Arrow IPC file: one row, list columns `values` (narrowest unsigned type) and `offsets` (int64).

    Raises StoreError when the file cannot be written.
    """
    tokens = _narrow(tokens)
    columns = [
        pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), pa.array(array))
        for array in (tokens.values, tokens.offsets)
    ]
    digest = _digest(tokens.values, tokens.offsets)
    table = pa.table(columns, names=["values", "offsets"]).replace_schema_metadata({"sha256": digest})
    with boundary(StoreError, f"The token cache {file} cannot be written", "Name another directory."):
        write_arrow_file(table, file)


def read_tokens(file: Path, mapped: bool = True) -> RaggedTokens:
    """Memory-map a file written by `write_tokens`, or read it into memory.

    Raises StoreError when it is truncated or does not match its checksum.
    """
    what = f"The token cache {file} cannot be read"
    with boundary(StoreError, what):
        table = read_columns(file, what=what, mapped=mapped)
        values, offsets = (table[name].chunk(0).values.to_numpy(zero_copy_only=True) for name in ("values", "offsets"))
        expected = (table.schema.metadata or {}).get(b"sha256", b"")
    if _digest(values, offsets).encode() != expected:
        raise StoreError(f"The token cache {file} does not match its checksum.")
    return RaggedTokens(values, offsets)


def _chunks(texts: pa.ChunkedArray | Sequence[str]) -> Iterator[list[str]]:
    """The texts as lists of strings of `CHUNK` each, so that an Arrow column is never a list of strings as a whole."""
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        strings = chunk.to_pylist() if isinstance(chunk, (pa.ChunkedArray, pa.Array)) else chunk
        yield [text or "" for text in strings]


def _build(texts: pa.ChunkedArray | Sequence[str], featurize: Featurize, description: str) -> RaggedTokens:
    chunks: list[RaggedTokens] = []
    # Tokenisers and hashing use all cores inside of one call. Several calls at once were no faster on two cores, and
    # abort the process under numba's "workqueue" layer, which is all that it has where OpenMP is missing.
    with progress(f"tokenising {description}", len(texts), unit="texts") as line:
        for chunk in _chunks(texts):
            chunks.append(_narrow(featurize(chunk)))
            line.advance(len(chunk))
    if not chunks:
        return _narrow(featurize([]))
    lengths = np.concatenate([tokens.lengths for tokens in chunks])
    return RaggedTokens(
        np.concatenate([tokens.values for tokens in chunks]), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )


def _narrow(tokens: RaggedTokens) -> RaggedTokens:
    """The same tokens in the narrowest unsigned type that holds them."""
    dtype = np.min_scalar_type(int(tokens.values.max(initial=0)))
    return RaggedTokens(tokens.values.astype(dtype, copy=False), tokens.offsets)


def _key(texts: pa.ChunkedArray | Sequence[str], features_key: str) -> str:
    digest = hashlib.sha256(f"{features_key}\0".encode())
    for chunk in _chunks(texts):
        encoded = [text.encode() for text in chunk]
        digest.update(np.array([len(text) for text in encoded], "<i8").tobytes())
        digest.update(b"".join(encoded))
    return digest.hexdigest()[:32]


def _digest(values: npt.NDArray[np.unsignedinteger], offsets: npt.NDArray[np.int64]) -> str:
    digest = hashlib.sha256(f"{values.dtype} {len(values)} {offsets.dtype} {len(offsets)}".encode())
    digest.update(values.view(np.uint8).data)
    digest.update(offsets.view(np.uint8).data)
    return digest.hexdigest()
