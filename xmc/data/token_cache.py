"""Token caches: tokenise a corpus once into a memory-mapped Arrow file keyed by content."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.data.tokens import RaggedTokens
from xmc.errors import StoreError
from xmc.progress import progress
from xmc.storage.arrow import write_arrow_file

__all__ = ["cached_tokens", "read_tokens", "write_tokens"]

logger = logging.getLogger("xmc.data.tokens")
Featurize = Callable[[Sequence[str]], RaggedTokens]
CHUNK = 8192


def cached_tokens(
    texts: pa.ChunkedArray | Sequence[str],
    featurize: Featurize,
    features_key: str,
    cache_directory: Path | None,
    description: str = "texts",
) -> RaggedTokens:
    """Tokens of all texts, from the cache where it holds them, else computed and (with a cache directory) stored.

    The file's name is a hash of `features_key` and of all texts; its content is verified when it is opened, and built again
    when it does not match. Two processes that build the same file at once both end with a whole one. A null text is an
    empty one. Raises StoreError when the directory cannot be written.
    """
    if cache_directory is None:
        return _build(texts, featurize, description)
    file = Path(cache_directory) / f"tokens-{_key(texts, features_key)}.arrow"
    if file.exists():
        try:
            return read_tokens(file)
        except StoreError as error:
            logger.warning("%s It is built again.", error)
    write_tokens(_build(texts, featurize, description), file)
    return read_tokens(file)


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
    try:
        write_arrow_file(table, file)
    except OSError as error:
        raise StoreError(f"The token cache {file} cannot be written: {error}. Name another directory.") from error


def read_tokens(file: Path) -> RaggedTokens:
    """Memory-map a file written by `write_tokens`; StoreError when it is truncated or does not match its checksum."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        # Damaged lengths would make the buffers reach outside of the map: reading them would end the process.
        table.validate(full=True)
        values, offsets = (table[name].chunk(0).values.to_numpy(zero_copy_only=True) for name in ("values", "offsets"))
        expected = (table.schema.metadata or {}).get(b"sha256", b"")
    except (OSError, LookupError, ValueError, AttributeError, pa.ArrowException) as error:
        raise StoreError(f"The token cache {file} cannot be read: {error}.") from error
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
