"""The image embeddings of ViXML's data sets: arrays of all images, and maps from queries or labels to their rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.data.dataset import Dataset
from xmc.data.images.files import gather_blocks
from xmc.data.images.object_arrays import NotNumbersError, read_number_lists
from xmc.data.images.ragged import RaggedImages
from xmc.errors import DataError, boundary
from xmc.progress import tracked
from xmc.storage.small_files import require_regular

__all__ = ["import_vixml_images"]

KINDS = {"train": ("trn", "train"), "test": ("tst", "test"), "labels": ("lbl", "labels")}
"""How file names begin: those of arrays with the first, those of maps with either."""
BLOCK = 1 << 16


def import_vixml_images(
    dataset: Dataset, source: Path, *, read_object_arrays: bool = False
) -> dict[str, tuple[int, int]]:
    """Write the images in a folder of ViXML's layout into the data set's directory; rows are those of the data set.

    `trn_embs_*.npy`, `tst_embs_*.npy` and `lbl_embs_*.npy` hold float16 or float32 [images, I]; `train_*map*.npy`,
    `test_*map*.npy` and `labels_*map*.npy` (or with `ids` in their name) say for each query or label which rows are its images:
    -1 for none, a row, rows padded with -1, or, in an array of Python objects, a list, or None for none.

    read_object_arrays: read such arrays, which are pickles, by a reader that makes lists and numbers of them and nothing else.
    Returns, for each of "train", "test" and "labels" in the folder, the number of images and the number of texts with any.

    Raises DataError for files that are not there, ambiguous, do not fit the data set, or hold objects without leave, before any
    is imported, and for embeddings that are not finite in float16.
    """
    directory = dataset.writable_directory()
    imported = {}
    for name, (short, long) in KINDS.items():
        arrays = sorted(source.glob(f"{short}_embs_*.npy"))
        if not arrays:
            continue
        maps = sorted({*source.glob(f"{short}_*.npy"), *source.glob(f"{long}_*.npy")} - set(arrays))
        maps = [file for file in maps if "map" in file.name or "ids" in file.name]
        rows = len(dataset.labels if name == "labels" else dataset.split(name))
        array, entries = _only(arrays, source, f"{short}_embs_*.npy"), _only(maps, source, f"{long}_*map*.npy")
        imported[name] = _Images(array, entries, rows, read_object_arrays)
        dataset.check_images(name, rows, imported[name].dimension)
    if not imported:
        raise DataError(f"{source} has no trn_embs_*.npy, tst_embs_*.npy or lbl_embs_*.npy.")
    dimensions = {images.file.name: images.dimension for images in imported.values()}
    if len(set(dimensions.values())) > 1:
        sizes = ", ".join(f"{file} of {dimension}" for file, dimension in dimensions.items())
        raise DataError(
            f"{source} has embeddings of different lengths, which cannot be of one data set: {sizes} numbers."
        )
    for name, images in imported.items():
        values = gather_blocks(images.blocks(), images.dimension, directory)
        offsets = np.concatenate([[0], np.cumsum(images.counts)]).astype(np.int64)
        dataset.add_images(name, RaggedImages(values, offsets))
    return {name: (int(images.counts.sum()), int((images.counts > 0).sum())) for name, images in imported.items()}


class _Images:
    """One array and its map, checked."""

    def __init__(self, array: Path, entries: Path, rows: int, read_object_arrays: bool) -> None:
        self.file = array
        self.embeddings = _load(array)
        if self.embeddings.ndim != 2 or self.embeddings.dtype not in (np.float16, np.float32):
            raise DataError(f"{array} must be float16 or float32 [images, numbers], but is {_kind(self.embeddings)}.")
        self.counts, self.image_rows = _map(entries, read_object_arrays)
        if len(self.counts) != rows:
            raise DataError(f"{entries} has {len(self.counts)} entries, but the data set has {rows} rows.")
        count = len(self.embeddings)
        if len(self.image_rows) and not 0 <= self.image_rows.min() <= self.image_rows.max() < count:
            bad = int(self.image_rows[(self.image_rows < 0) | (self.image_rows >= count)][0])
            raise DataError(f"{entries} names the image {bad}, but {array} has {count}.")

    @property
    def dimension(self) -> int:
        return int(self.embeddings.shape[1])

    def blocks(self) -> Iterator[npt.NDArray[np.float16]]:
        """The images of all texts, one text after the other, float16 [up to BLOCK, I] at a time."""
        starts = range(0, len(self.image_rows), BLOCK)
        for start in tracked(starts, f"reading {self.file.name}", unit=f"blocks of {BLOCK:,} images"):
            rows = self.image_rows[start : start + BLOCK]
            with np.errstate(over="ignore"):
                block = self.embeddings[rows].astype(np.float16)
            finite = np.isfinite(block).all(1)
            if not finite.all():
                bad = int(rows[~finite][0])
                raise DataError(
                    f"{self.file}, row {bad}: the embedding is not finite in float16; leave it out of the map."
                )
            yield block


def _map(file: Path, read_object_arrays: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The number of images of each row, and the rows of these images in their array, one row's after another's."""
    lists = _object_lists(file, read_object_arrays)
    if lists is not None:
        lists = [images[images != -1] for images in lists]
        return np.array([len(images) for images in lists], np.int64), np.concatenate([np.zeros(0, np.int64), *lists])
    entries = _load(file)
    if entries.dtype.kind not in "iu" or entries.ndim not in (1, 2):
        raise DataError(f"{file} must hold whole numbers [rows] or [rows, images], or lists, but is {_kind(entries)}.")
    columns = entries.size // max(1, len(entries))
    matrix = np.asarray(entries, np.int64).reshape(len(entries), columns)
    kept = matrix != -1
    return kept.sum(1), matrix[kept]


def _load(file: Path) -> npt.NDArray[Any]:
    with boundary(DataError, f"{file} cannot be read as an array"):
        require_regular(file)
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return array


def _object_lists(file: Path, read_object_arrays: bool) -> list[npt.NDArray[np.int64]] | None:
    """The lists of an array of Python objects; None for any other array."""
    with boundary(DataError, f"{file} cannot be read as an array"):
        size = require_regular(file).st_size
        with file.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
            if not dtype.hasobject:
                return None
            if read_object_arrays:
                if math.prod(shape) > size:  # an object takes a byte at least
                    raise ValueError(f"its header says {list(shape)} objects, which {size:,} bytes cannot hold")
                try:
                    return read_number_lists(stream, shape)
                except NotNumbersError as error:
                    raise DataError(f"{file} cannot be read as lists of row numbers: {error}.") from error
    raise DataError(
        f"{file} holds Python objects, that is, a pickle, which can run any code when it is read. Give --read-object-arrays "
        f"to read lists of numbers from it and nothing else, or convert it where you trust it into whole numbers "
        f"[rows, images], padded with -1 (docs/formats.md has the three lines)."
    )


def _only(files: list[Path], source: Path, pattern: str) -> Path:
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DataError(f"{source} must have one file {pattern}, but has {names}; leave one of them there.")
    return files[0]


def _kind(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
