"""The image embeddings of ViXML's data sets: arrays of all images, and maps from queries or labels to their rows."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.data.dataset import Dataset
from xmc.data.images import RaggedImages
from xmc.errors import DataError

__all__ = ["import_vixml_images"]

KINDS = {"train": ("trn", "train"), "test": ("tst", "test"), "labels": ("lbl", "labels")}
"""How file names begin: those of arrays with the first, those of maps with either."""
BLOCK = 1 << 16
_SAFE = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("_codecs", "encode"),
}
"""All that an array of lists of numbers is made of."""


def import_vixml_images(
    dataset: Dataset, source: Path, *, read_object_arrays: bool = False
) -> dict[str, tuple[int, int]]:
    """Write the images in a folder of ViXML's layout into the data set's directory; rows are those of the data set.

    `trn_embs_*.npy`, `tst_embs_*.npy` and `lbl_embs_*.npy` hold float16 or float32 [images, I]; `train_*map*.npy`,
    `test_*map*.npy` and `labels_*map*.npy` (or with `ids` in their name) say for each query or label which rows are its images:
    -1 for none, a row, rows padded with -1, or, in an array of Python objects, a list.

    read_object_arrays: read such arrays, which are pickles, by a reader that makes lists and numbers of them and nothing else.
    Returns, for each of "train", "test" and "labels" that is there, how many images and how many texts with any.

    Raises DataError for files that are not there, ambiguous, do not fit the data set, or hold objects without leave.
    """
    if dataset.directory is None:
        raise DataError(f"The data set {dataset.name!r} has no directory; save it first.")
    found = {}
    for name, (short, long) in KINDS.items():
        arrays = sorted(source.glob(f"{short}_embs_*.npy"))
        if not arrays:
            continue
        maps = sorted({*source.glob(f"{short}_*.npy"), *source.glob(f"{long}_*.npy")} - set(arrays))
        maps = [file for file in maps if "map" in file.name or "ids" in file.name]
        rows = len(dataset.labels if name == "labels" else dataset.split(name))
        array, entries = _only(arrays, source, f"{short}_embs_*.npy"), _only(maps, source, f"{long}_*map*.npy")
        images = _Images(array, entries, rows, read_object_arrays)
        with tempfile.TemporaryDirectory(dir=dataset.directory, prefix=".images-") as folder:
            dataset.add_images(name, images.ragged(Path(folder) / "values"))
        found[name] = (int(images.counts.sum()), int((images.counts > 0).sum()))
    if not found:
        raise DataError(f"{source} has no trn_embs_*.npy, tst_embs_*.npy or lbl_embs_*.npy.")
    return found


class _Images:
    """One array and its map, checked."""

    def __init__(self, array: Path, entries: Path, rows: int, read_object_arrays: bool) -> None:
        self.file = array
        self.embeddings = _load(array)
        if self.embeddings.ndim != 2 or self.embeddings.dtype not in (np.float16, np.float32):
            raise DataError(f"{array} must be float16 or float32 [images, numbers], but is {_kind(self.embeddings)}.")
        self.counts, self.places = _map(entries, read_object_arrays)
        if len(self.counts) != rows:
            raise DataError(f"{entries} has {len(self.counts)} entries, but the data set has {rows} rows.")
        count = len(self.embeddings)
        if len(self.places) and not 0 <= self.places.min() <= self.places.max() < count:
            bad = int(self.places[(self.places < 0) | (self.places >= count)][0])
            raise DataError(f"{entries} names the image {bad}, but {array} has {count}.")

    def ragged(self, file: Path) -> RaggedImages:
        """In float16, block by block into a memory map at `file`."""
        shape = (len(self.places), self.embeddings.shape[1])
        values = np.memmap(file, np.float16, "w+", shape=shape) if self.places.size else np.zeros(shape, np.float16)
        for start in range(0, len(self.places), BLOCK):
            block = np.asarray(self.embeddings[self.places[start : start + BLOCK]], np.float32)
            with np.errstate(over="ignore"):
                values[start : start + BLOCK] = block.astype(np.float16)
            if not np.isfinite(values[start : start + BLOCK]).all():
                raise DataError(f"{self.file} has an embedding that is not finite in float16.")
        return RaggedImages(values, np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64))


def _map(file: Path, read_object_arrays: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How many images each row has, and which, one row's after another's."""
    entries = _load(file, read_object_arrays)
    if entries.dtype == object and entries.ndim == 1:
        lists = [_list(entry, file, row) for row, entry in enumerate(entries)]
        counts = np.array([len(one) for one in lists], np.int64)
        return counts, np.concatenate([np.zeros(0, np.int64), *lists]).astype(np.int64)
    if entries.dtype.kind not in "iu" or entries.ndim not in (1, 2):
        raise DataError(f"{file} must hold whole numbers [rows] or [rows, images], or lists, but is {_kind(entries)}.")
    matrix = np.asarray(entries, np.int64).reshape(len(entries), -1)
    kept = matrix != -1
    return kept.sum(1), matrix[kept]


def _list(entry: Any, file: Path, row: int) -> npt.NDArray[np.int64]:
    """The images of a row: none for -1."""
    try:
        one = np.atleast_1d(np.asarray(entry))
    except ValueError:
        one = np.zeros(0, object)
    if (one.dtype.kind not in "iu" and one.size) or one.ndim != 1 or (not one.size and entry not in ([], ())):
        raise DataError(f"{file}, entry {row}: {entry!r} is neither -1 nor a list of rows.")
    numbers: npt.NDArray[np.int64] = one.astype(np.int64)
    return np.asarray(numbers[numbers != -1], np.int64)


def _load(file: Path, read_object_arrays: bool = False) -> npt.NDArray[Any]:
    try:
        with file.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
            if not dtype.hasobject:
                array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
                return array
            if not read_object_arrays:
                raise DataError(
                    f"{file} holds Python objects, that is, a pickle, which can run any code when it is read. Give "
                    f"--read-object-arrays to read lists of numbers from it and nothing else, or convert it where you "
                    f"trust it into whole numbers [rows, images], padded with -1."
                )
            entries = _ListsOfNumbers(stream).load()
    except (OSError, ValueError, EOFError, pickle.UnpicklingError, AttributeError, TypeError, IndexError) as error:
        raise DataError(f"{file} cannot be read as an array: {error}") from error
    if not isinstance(entries, np.ndarray) or entries.shape != shape:
        raise DataError(f"{file} does not hold the array that its header describes.")
    return entries


class _ListsOfNumbers(pickle.Unpickler):
    """Makes arrays, lists and numbers, and refuses whatever else a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which lists of numbers are not made of")
        return super().find_class(module, name)


def _only(files: list[Path], source: Path, pattern: str) -> Path:
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DataError(f"{source} must have one file {pattern}, but has {names}; leave one of them there.")
    return files[0]


def _kind(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
