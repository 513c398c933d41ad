"""Embeddings as a job: rows of texts in, one file of vectors out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from xmc.batch.columns import columns_of_input
from xmc.batch.job import run_job
from xmc.batch.options import JobOptions
from xmc.batch.output import SUCCESS
from xmc.batch.search import load_model
from xmc.batch.summary import Summary
from xmc.batch.work import Chunk, Work, WorkSpecification, features_of, tokens_in
from xmc.encoders.base import Side
from xmc.errors import ConfigError, StoreError, boundary
from xmc.search.run_directory import RunDirectory
from xmc.storage.files import atomic_file
from xmc.storage.parquet import parquet_writer

__all__ = ["Embedding", "embed_files"]


def embed_files(
    run: str | Path,
    source: str | Path,
    destination: str | Path,
    side: str = "query",
    *,
    options: JobOptions | None = None,
) -> Summary:
    """Embed the text of every row of some files by a run's encoder, into one file.

    source, options: as of xmc.batch.predict.predict_files. side: whether the texts are queries or labels; labels are
        embedded from their text alone, as labels that are added to a run.
    destination: NAME.arrow, Arrow IPC with the columns uid and embedding, fixed-size lists of D float32, which `predict_files`
        takes as input; or NAME.npy, float32 [n, D] in the order of the input, whose uids go to NAME.uids.parquet. A bad row
        that is kept has a null embedding, or a row of NaN.

    What is done is kept in NAME.parts until all is. Errors as of `predict_files`; ConfigError for another ending.
    """
    options, destination = options or JobOptions(), Path(destination)
    if side not in get_args(Side):
        raise ConfigError(f"side must be {' or '.join(get_args(Side))}, but is {side!r}.")
    if destination.suffix not in (".arrow", ".npy"):
        raise ConfigError(f"{destination} must end with .arrow or .npy.")
    if options.columns.embedding is not None or options.index_shards:
        raise ConfigError("Embedding takes texts or tokens, and needs no index.")
    if destination.exists():
        raise StoreError(f"{destination} exists already; name another file, or remove it first.")
    options = replace(options, columns=columns_of_input(options.columns, run, str(source)))
    parts = destination.with_suffix(".parts")
    place = str(Path(run).absolute())
    work = Embedding(place, options.columns, "label" if side == "label" else "query", options.device)
    summary = run_job(work, str(source), str(parts), options)
    remedy = f"Make room and go on with resume; what was embedded is in {parts}."
    with boundary(StoreError, f"{destination} cannot be written", remedy):
        if destination.suffix == ".arrow":
            _to_arrow(parts, destination)
        else:
            _to_npy(parts, destination, summary.predicted + summary.null)
    shutil.rmtree(parts)
    return summary


@dataclass(frozen=True)
class Embedding(WorkSpecification):
    """The embedding of each row."""

    side: Side
    device: str | tuple[str, ...] = "auto"

    def describe(self) -> dict[str, Any]:
        """See WorkSpecification."""
        return {"work": "embed", "run": RunDirectory(self.run).fingerprint, "side": self.side}

    @property
    def names(self) -> tuple[str, ...]:
        """See WorkSpecification."""
        return "uid", "embedding"

    def load(self, shards: tuple[Any, ...] = ()) -> Work:
        """See WorkSpecification."""
        return _Embedding(self)


class _Embedding(Work):
    def __init__(self, asked: Embedding) -> None:
        self._model, self._asked = load_model(asked.run, asked.device), asked
        self.device, self.dimension = next(self._model.parameters()).device, self._model.dimension
        self.schema = pa.schema([("uid", pa.string()), ("embedding", pa.list_(pa.float32(), self.dimension))])
        self.steps = (("tokenise", self._features), ("encode", self._embeddings))

    def _features(self, chunk: Chunk) -> Chunk:
        encoder = self._model.query_encoder if self._asked.side == "query" else self._model.label_encoder
        features = features_of(chunk.rows, self._asked.columns, encoder, self._asked.side)
        return replace(chunk, value=features, tokens=tokens_in(features, encoder))

    @torch.no_grad()
    def _embeddings(self, chunk: Chunk) -> Chunk:
        model, features, good = self._model, chunk.value, chunk.rows.good
        if self._asked.side == "query":
            embedded = model.queries(features)
        else:
            embedded = model.new_labels(model.label_texts(features))
        every = np.zeros((len(good), self.dimension), np.float32)
        every[good] = embedded.float().cpu().numpy()
        values = pa.array(every.ravel())
        lists = pa.FixedSizeListArray.from_arrays(values, self.dimension, mask=pa.array(~good))
        return replace(chunk, value=pa.record_batch([chunk.rows.uids, lists], schema=self.schema))


def _files(parts: Path) -> list[Path]:
    """In the order of the input."""
    return [parts / part["name"] for part in json.loads((parts / SUCCESS).read_text(encoding="utf-8"))["parts"]]


def _batches(parts: Path) -> Iterator[pa.RecordBatch]:
    for file in _files(parts):
        yield from pq.ParquetFile(file).iter_batches(16_384)


def _to_arrow(parts: Path, destination: Path) -> None:
    schema = pq.read_schema(_files(parts)[0]).remove_metadata()
    with atomic_file(destination) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        for batch in _batches(parts):
            writer.write_batch(batch.replace_schema_metadata(None))


def _to_npy(parts: Path, destination: Path, rows: int) -> None:
    dimension = pq.read_schema(_files(parts)[0]).field("embedding").type.list_size
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
    uids = destination.with_suffix(".uids.parquet")
    schema = pa.schema([("uid", pa.string())])
    # Written, not mapped for writing: on a full disk that is an error, where a map would end the process.
    with (
        atomic_file(destination) as matrix,
        atomic_file(uids) as names,
        matrix.open("wb") as out,
        parquet_writer(names, schema) as writer,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for batch in _batches(parts):
            lists = batch.column("embedding")
            values = lists.flatten() if not lists.null_count else lists.fill_null([float("nan")] * dimension).flatten()
            out.write(np.ascontiguousarray(values.to_numpy(), "<f4").data)
            writer.write_batch(batch.select(["uid"]))
