"""Embeddings of image files by a pretrained vision model, for a data set's queries or labels, part by part."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import safe_open
from safetensors.numpy import save_file

from xmc.data.dataset import Dataset
from xmc.data.files import WantedColumn, open_file
from xmc.data.images.files import gather_blocks
from xmc.data.images.ragged import RaggedImages
from xmc.data.images.vision import VisionModel
from xmc.errors import DataError, StoreError, boundary
from xmc.progress import progress
from xmc.storage.files import atomic_file
from xmc.storage.fingerprints import fingerprint_of, fingerprint_of_json, sha256_file

__all__ = ["EmbeddedImages", "embed_images"]

logger = logging.getLogger("xmc.data")
CHUNK = 1024
"""Number of images in one part of the work, which is the most that an interruption loses."""


@dataclass(frozen=True)
class EmbeddedImages:
    """What `embed_images` did.

    rows: number of texts. images: number of images embedded. texts: number of texts with at least one. broken: (uid, path,
    reason) of files that were skipped. unknown_uids: number of lines of the table with a uid that the data set does not have.
    too_many: number of lines beyond the `most` images of a text.
    """

    rows: int
    images: int
    texts: int
    broken: list[tuple[str, str, str]]
    unknown_uids: int
    too_many: int


def embed_images(
    dataset: Dataset,
    of: str,
    table: Path,
    model: Path,
    *,
    root: Path | None = None,
    most: int = 3,
    batch_size: int = 32,
    device: str = "auto",
) -> EmbeddedImages:
    """Embed the image files that a table names, and write them into the data set's directory.

    of: a split, or "labels". table: a file of records (Parquet, CSV, JSONL ...) with columns uid and path, a row an image,
    in order; relative paths start at `root`, by default the table's directory. model: a Hugging Face directory with a vision
    model (or one with a vision part that has get_image_features) and its image processor; safetensors weights alone are
    read, and no code of its own.

    Files that are missing, damaged or larger than Pillow allows are skipped, counted and listed in `images-<of>.broken.csv`.
    What is done is kept in `images-<of>.parts` until all is; a later call goes on from there, to the same result, with the same
    table, model, options and uids of the data set, on whichever device; with others it begins again.

    Raises DataError for a table or a data set that cannot be used, ConfigError for such a model.
    """
    directory = dataset.writable_directory()
    uids = dataset.labels.uids if of == "labels" else dataset.split(of).uids
    jobs, unknown, too_many = _jobs(table, uids, most)
    base = table.parent if root is None else root
    vision = VisionModel(model, device)
    dataset.check_images(of, len(uids), vision.dimension)  # before the work
    parts = directory / f"images-{of}.parts"
    options = [str(base.resolve()), most, batch_size, CHUNK]
    _begin(parts, [sha256_file(table), _digest(jobs), _model_digest(model), *options])
    starts = range(0, len(jobs), CHUNK)
    missing = [start for start in starts if not _is_whole(parts / _name(start))]
    if len(missing) < len(starts):
        logger.info("going on after %d of %d parts in %s", len(starts) - len(missing), len(starts), parts)
    there = len(jobs) - sum(min(CHUNK, len(jobs) - start) for start in missing)
    with progress(f"embedding images of {of}", len(jobs), done=there, unit="images", keep=True) as line:
        for start in missing:
            paths = [base / path for _, path in jobs[start : start + CHUNK]]
            embeddings, reasons = vision.embed(paths, batch_size, line.advance)
            _write_part(parts / _name(start), embeddings, reasons)
    files = [parts / _name(start) for start in starts]
    reasons = [reason for file in files for reason in _reasons(file)]
    broken = [(uids[row].as_py(), path, reason) for (row, path), reason in zip(jobs, reasons, strict=True) if reason]
    _list_broken(directory / f"images-{of}.broken.csv", broken)
    rows = np.array([row for (row, _), reason in zip(jobs, reasons, strict=True) if not reason], np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(uids)))]).astype(np.int64)
    images = RaggedImages(gather_blocks(_embeddings(files), vision.dimension, directory), offsets)
    dataset.add_images(of, images)
    shutil.rmtree(parts)
    return EmbeddedImages(len(uids), len(images.values), int((images.counts > 0).sum()), broken, unknown, too_many)


def _jobs(table: Path, uids: pa.ChunkedArray, most: int) -> tuple[list[tuple[int, str]], int, int]:
    """(row, path) of each image in order of rows, lines of unknown uids, and lines that are too many."""
    named, files = open_file(table, [WantedColumn("uid", "uid"), WantedColumn("path", "text")]).columns()
    rows = pc.fill_null(pc.index_in(named, value_set=uids).cast("int64"), -1).to_numpy()
    paths = [path or "" for path in files.to_pylist()]
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    counts = np.bincount(rows[order], minlength=1) if len(order) else np.zeros(1, np.int64)
    firsts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    rank = np.arange(len(order)) - firsts[rows[order]]
    kept = order[rank < most]
    return [(int(rows[line]), paths[line]) for line in kept], int((rows < 0).sum()), len(order) - len(kept)


def _begin(parts: Path, identity: list[Any]) -> None:
    """Make the folder of parts; one of another job is emptied."""
    digest = fingerprint_of_json(identity)
    file = parts / "job"
    if parts.is_dir() and (not file.is_file() or file.read_text(encoding="utf-8") != digest):
        logger.warning("%s is of another table, model or option; it is begun again", parts)
        shutil.rmtree(parts)
    with _writing(parts):
        parts.mkdir(exist_ok=True)
        with atomic_file(file) as temporary:
            temporary.write_text(digest, encoding="utf-8")


def _writing(path: Path) -> contextlib.AbstractContextManager[None]:
    return boundary(DataError, f"{path} cannot be written", "Make room, and give the same command again.")


def _model_digest(model: Path) -> str:
    files = sorted(file for file in model.glob("*") if file.suffix in (".json", ".safetensors"))
    return fingerprint_of((file.name, sha256_file(file)) for file in files)


def _digest(jobs: list[tuple[int, str]]) -> str:
    """The digest of rows and paths: a data set that was converted again may have its uids in another order."""
    digest = hashlib.sha256()
    for row, path in jobs:
        digest.update(f"{row}:{path}\0".encode())
    return digest.hexdigest()


def _name(start: int) -> str:
    return f"part-{start // CHUNK:06d}.safetensors"


def _is_whole(file: Path) -> bool:
    try:
        with _reading(file), safe_open(file, "numpy") as tensors:
            return "embeddings" in tensors.keys()  # noqa: SIM118
    except StoreError:
        return False


def _reading(file: Path) -> AbstractContextManager[None]:
    return boundary(StoreError, f"The part {file} of the embeddings cannot be read")


def _write_part(file: Path, embeddings: npt.NDArray[np.float16], reasons: list[str]) -> None:
    with _writing(file), atomic_file(file) as temporary:
        save_file({"embeddings": embeddings}, temporary, {"reasons": json.dumps(reasons)})


def _reasons(file: Path) -> list[str]:
    with _reading(file), safe_open(file, "numpy") as tensors:
        return [str(reason) for reason in json.loads(tensors.metadata()["reasons"])]


def _embeddings(parts: list[Path]) -> Iterator[npt.NDArray[np.float16]]:
    """The embeddings of the files that could be embedded, part by part."""
    for file in parts:
        with _reading(file), safe_open(file, "numpy") as tensors:
            embeddings = tensors.get_tensor("embeddings")[[not reason for reason in _reasons(file)]]
        yield embeddings


def _list_broken(file: Path, broken: list[tuple[str, str, str]]) -> None:
    """Write, or remove, the list of files that were skipped."""
    if not broken:
        file.unlink(missing_ok=True)
        return
    with _writing(file), atomic_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([("uid", "path", "reason"), *broken])
