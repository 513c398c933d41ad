"""Image embeddings on disk: an Arrow file that is memory-mapped, since there may be many gigabytes of them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.data.images.ragged import RaggedImages
from xmc.errors import DataError, InputError, boundary
from xmc.storage.arrow import read_columns, write_arrow_file

__all__ = ["content_of", "digest_of", "dimension_of", "gather_blocks", "read_images", "write_images"]

COLUMN = "images"
_BLOCK = 1 << 26


def write_images(images: RaggedImages, file: Path, named: Path | None = None) -> str:
    """Write an Arrow IPC file: a column `images`, large_list<fixed_size_list<halffloat>[I]>, null where a text has none.

    The values may be a memory map: they are written from where they are. Returns the SHA-256 of the content, which the file's
    schema holds. named: what errors call the file. Raises InputError for arrays that are not as `RaggedImages` says, DataError
    when the file cannot be written.
    """
    _check(images)
    flat = pa.array(np.ascontiguousarray(images.values).reshape(-1))
    values = pa.FixedSizeListArray.from_arrays(flat, images.dimension)
    missing = pa.array(images.counts == 0)
    column = pa.LargeListArray.from_arrays(pa.array(images.offsets), values, mask=missing)
    digest = digest_of(images)
    table = pa.table([column], names=[COLUMN]).replace_schema_metadata({"sha256": digest})
    with boundary(DataError, f"The images {named or file} cannot be written", "Make room, or name another directory."):
        write_arrow_file(table, file)
    return digest


def read_images(file: Path) -> RaggedImages:
    """Memory-map a file of `write_images`, after its checksum has been compared, for which all of it is read once.

    Raises DataError for a file that is cut short or does not match its checksum.
    """
    table = _open(file)
    with boundary(DataError, f"The images {file} cannot be read"):
        column = table[COLUMN].combine_chunks() if table[COLUMN].num_chunks != 1 else table[COLUMN].chunk(0)
        offsets = column.offsets.to_numpy()
        width = column.type.value_type.list_size
        values = column.values.values.to_numpy(zero_copy_only=True).reshape(-1, width)
        images = RaggedImages(values, np.asarray(offsets, np.int64))
        sound = len(offsets) and offsets[0] == 0 and offsets[-1] == len(values) and values.dtype == np.float16
    if not sound or digest_of(images) != content_of(file):
        raise DataError(f"The images {file} do not match their checksum; make them again.")
    return images


def content_of(file: Path) -> str:
    """The SHA-256 of the content, as the file says it."""
    # Damaged bytes need not be ASCII; replaced, they match no checksum.
    return str((_open(file).schema.metadata or {}).get(b"sha256", b"").decode("ascii", "replace"))


def dimension_of(file: Path) -> int:
    """Numbers I of an embedding, as the file says it. Raises DataError for a file of another kind."""
    with boundary(DataError, f"The images {file} cannot be read", "They are not of `write_images`."):
        return int(_open(file).schema.field(COLUMN).type.value_type.list_size)


def gather_blocks(blocks: Iterable[npt.NDArray[np.float16]], dimension: int, folder: Path) -> npt.NDArray[np.float16]:
    """The blocks [b, dimension] one after another, as a read-only memory map, for `write_images`.

    It is of a file in `folder` without a name, which is gone with the array, or with the process. Raises DataError when the
    blocks cannot be written.
    """
    try:
        # Written, not mapped for writing: on a full disk that is an error, where a map would end the process.
        with tempfile.TemporaryFile(dir=folder) as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, np.float16).data)
            file.flush()
            if not file.tell():
                return np.zeros((0, dimension), np.float16)
            return np.memmap(file, np.float16, "r", shape=(file.tell() // (2 * dimension), dimension))
    except OSError as error:
        raise DataError(f"Images cannot be written in {folder}: {error}. Make room there.") from error


def _check(images: RaggedImages) -> None:
    values, offsets = images.values, images.offsets
    if values.dtype != np.float16 or values.ndim != 2 or not values.shape[1]:
        raise InputError(
            f"Image embeddings must be float16 [images, numbers], but are {values.dtype} {list(values.shape)}; "
            f"RaggedImages.from_arrays makes them, with `dimension` where no text has an image."
        )
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise InputError(f"The offsets of {len(values)} image embeddings must rise from 0 to {len(values)}.")


def _open(file: Path) -> pa.Table:
    return read_columns(file, kind=DataError, what=f"The images {file} cannot be read")


def digest_of(images: RaggedImages) -> str:
    """The SHA-256 of values and offsets."""
    values = images.values.reshape(-1).view(np.uint8)
    digest = hashlib.sha256(f"{images.values.shape} {len(images.offsets)}".encode())
    for start in range(0, len(values), _BLOCK):
        digest.update(np.ascontiguousarray(values[start : start + _BLOCK]).data)
    offsets: npt.NDArray[np.int64] = images.offsets.astype("<i8")
    digest.update(offsets.tobytes())
    return digest.hexdigest()
