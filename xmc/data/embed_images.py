"""Embeddings of image files by a pretrained vision model, for a data set's queries or labels, part by part."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from xmc.data.dataset import Dataset
from xmc.data.images import RaggedImages
from xmc.errors import ConfigError, DataError
from xmc.store import atomic_file, sha256_file

__all__ = ["EmbeddedImages", "embed_images"]

logger = logging.getLogger("xmc.data")
CHUNK = 1024
"""Images of a part, which is what an interruption can lose."""


@dataclass(frozen=True)
class EmbeddedImages:
    """What was done.

    images: embedded. texts: that have at least one. broken: (uid, path, reason) of files that were skipped. unknown_uids,
    too_many: lines of the table whose uid the data set does not have, and those beyond a text's `most` images.
    """

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

    of: a split, or "labels". table: Parquet, CSV or JSONL with columns uid and path, a line an image, in order; relative paths
    start at `root`, by default the table's directory. model: a Hugging Face directory with a vision model (or one with a vision
    part that has get_image_features) and its image processor; safetensors weights alone are read, and no code of its own.

    Files that are missing, damaged or larger than Pillow allows are skipped, counted and listed in `images-<of>.broken.csv`.
    What is done is kept in `images-<of>.parts` until all is; with the same table, model and options a later call goes on from
    there, to the same result, and with others it begins again.

    Raises DataError for a table or a data set that cannot be used, ConfigError for such a model.
    """
    if dataset.directory is None:
        raise DataError(f"The data set {dataset.name!r} has no directory; save it first.")
    uids = dataset.labels.uids if of == "labels" else dataset.split(of).uids
    jobs, unknown, too_many = _jobs(table, uids, most)
    parts = dataset.directory / f"images-{of}.parts"
    _begin(parts, [sha256_file(table), str(root), most, batch_size, of, _model_digest(model)])
    base = table.parent if root is None else root
    starts = range(0, len(jobs), CHUNK)
    missing = [start for start in starts if not _is_whole(parts / _name(start))]
    if len(missing) < len(starts):
        logger.info("going on after %d of %d parts in %s", len(starts) - len(missing), len(starts), parts)
    if missing or not len(jobs):
        vision = _Vision(model, device)
        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"embedding images of {of}", total=len(jobs))
            progress.advance(task, len(jobs) - sum(min(CHUNK, len(jobs) - start) for start in missing))
            for start in missing:
                some = jobs[start : start + CHUNK]
                _write_part(parts / _name(start), *vision.embed([base / path for _, path in some], batch_size))
                progress.advance(task, len(some))
        dimension = vision.dimension
    else:
        dimension = 0
    return _assemble(dataset, of, parts, jobs, uids, dimension, unknown, too_many)


class _Vision:
    """A vision model and its processor."""

    def __init__(self, directory: Path, device: str) -> None:
        from transformers import AutoConfig, AutoImageProcessor, AutoModel

        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        if not directory.is_dir():
            raise ConfigError(f"--model {str(directory)!r} is not a directory with a vision model.")
        try:
            config = AutoConfig.from_pretrained(directory, **options)
            self.processor = AutoImageProcessor.from_pretrained(directory, use_fast=False, **options)
            self.model = AutoModel.from_pretrained(directory, use_safetensors=True, config=config, **options).eval()
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
            raise ConfigError(
                f"{directory} cannot be loaded as a vision model with safetensors weights: {error}"
            ) from error
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(name)
        self.model.to(self.device)
        self.dimension = self._features([Image.new("RGB", (32, 32))]).shape[1]

    def embed(
        self, paths: Sequence[Path], batch_size: int
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_], list[str]]:
        """Embeddings float16 [n, I], which of the files could be embedded, and why others could not ("" where they could)."""
        found = np.zeros((len(paths), self.dimension), np.float16)
        reasons: list[str] = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(paths), batch_size):
                opened = list(pool.map(_open, paths[start : start + batch_size]))
                whole = [start + place for place, one in enumerate(opened) if not isinstance(one, str)]
                reasons += [one if isinstance(one, str) else "" for one in opened]
                if whole:
                    features = self._features([one for one in opened if not isinstance(one, str)])
                    found[whole] = features.float().cpu().numpy().astype(np.float16)
        for row in np.flatnonzero(~np.isfinite(found).all(1)):
            found[row], reasons[row] = 0, reasons[row] or "its embedding is not finite in float16"
        return found, np.array([not reason for reason in reasons], bool), reasons

    @torch.no_grad()
    def _features(self, images: list[Image.Image]) -> Tensor:
        inputs = self.processor(images=images, return_tensors="pt").to(self.device)
        if hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(**inputs)
        else:
            output = self.model(**inputs)
        if isinstance(output, Tensor):
            return output
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        mean: Tensor = output.last_hidden_state.mean(1)
        return mean


def _open(path: Path) -> Image.Image | str:
    """The image in RGB, or why it cannot be had."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.convert("RGB")
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def _jobs(table: Path, uids: pa.ChunkedArray, most: int) -> tuple[list[tuple[int, str]], int, int]:
    """(row, path) of each image in order of rows, lines of unknown uids, and lines that are too many."""
    lines = _lines(table)
    for name in ("uid", "path"):
        if name not in lines.column_names:
            raise DataError(f"{table} has no column {name!r}, only {', '.join(lines.column_names)}.")
    rows = pc.fill_null(pc.index_in(lines["uid"].cast(pa.string()), value_set=uids).cast("int64"), -1).to_numpy()
    paths = [path or "" for path in lines["path"].cast(pa.string()).to_pylist()]
    order = np.argsort(rows, kind="stable")
    order = order[rows[order] >= 0]
    counts = np.bincount(rows[order], minlength=1) if len(order) else np.zeros(1, np.int64)
    firsts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    rank = np.arange(len(order)) - firsts[rows[order]]
    kept = order[rank < most]
    return [(int(rows[line]), paths[line]) for line in kept], int((rows < 0).sum()), len(order) - len(kept)


def _lines(table: Path) -> pa.Table:
    """The table of image files; uids of a CSV file as they are written."""
    try:
        if table.suffix == ".parquet":
            return pq.read_table(table)
        if table.suffix == ".jsonl":
            return pa_json.read_json(table)
        if table.suffix == ".csv":
            strings = pa_csv.ConvertOptions(column_types={"uid": pa.string(), "path": pa.string()})
            return pa_csv.read_csv(table, convert_options=strings)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{table} cannot be read: {error}") from error
    raise DataError(f"{table} must be a .parquet, .csv or .jsonl file with the columns uid and path.")


def _begin(parts: Path, identity: list[Any]) -> None:
    """Make the folder of parts; one of another job is emptied."""
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    file = parts / "job"
    if parts.is_dir() and (not file.is_file() or file.read_text(encoding="utf-8") != digest):
        logger.warning("%s is of another table, model or option; it is begun again", parts)
        shutil.rmtree(parts)
    parts.mkdir(exist_ok=True)
    with atomic_file(file) as temporary:
        temporary.write_text(digest, encoding="utf-8")


def _model_digest(model: Path) -> str:
    files = sorted(file for file in model.glob("*") if file.suffix in (".json", ".safetensors"))
    return hashlib.sha256("".join(f"{file.name}:{sha256_file(file)}\n" for file in files).encode()).hexdigest()


def _name(start: int) -> str:
    return f"part-{start // CHUNK:06d}.safetensors"


def _is_whole(file: Path) -> bool:
    try:
        with safe_open(file, "numpy") as part:
            return "embeddings" in part.keys()  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


def _write_part(
    file: Path, embeddings: npt.NDArray[np.float16], whole: npt.NDArray[np.bool_], reasons: list[str]
) -> None:
    with atomic_file(file) as temporary:
        save_file({"embeddings": embeddings, "whole": whole}, temporary, {"reasons": json.dumps(reasons)})


def _assemble(
    dataset: Dataset,
    of: str,
    parts: Path,
    jobs: list[tuple[int, str]],
    uids: pa.ChunkedArray,
    dimension: int,
    unknown: int,
    too_many: int,
) -> EmbeddedImages:
    embeddings, whole, reasons = [], [], []
    for start in range(0, len(jobs), CHUNK):
        with safe_open(parts / _name(start), "numpy") as part:
            embeddings.append(part.get_tensor("embeddings"))
            whole.append(part.get_tensor("whole"))
            reasons += json.loads(part.metadata()["reasons"])
    kept = np.concatenate(whole) if whole else np.zeros(0, bool)
    values = np.concatenate(embeddings)[kept] if embeddings else np.zeros((0, dimension), np.float16)
    rows = np.array([row for row, _ in jobs], np.int64)[kept]
    counts = np.bincount(rows, minlength=len(uids))
    dataset.add_images(of, RaggedImages(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)))
    names = uids.to_pylist()
    broken = [(names[row], path, reason) for (row, path), reason in zip(jobs, reasons, strict=True) if reason]
    file = parts.with_name(f"images-{of}.broken.csv")
    file.unlink(missing_ok=True)
    if broken:
        with atomic_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([("uid", "path", "reason"), *broken])
    shutil.rmtree(parts)
    return EmbeddedImages(len(values), int((counts > 0).sum()), broken, unknown, too_many)
