"""What a predictor needs of a run directory, read without torch: every file verified, and what is large left on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xmc.arrays import Embeddings, Rows
from xmc.data.sequences import in_order, require_query_text
from xmc.encoders.static.formulas import KINDS
from xmc.encoders.static.normalising import NormalisedTexts, normalised
from xmc.errors import InputError, StoreError
from xmc.storage.arrow import place_embeddings, read_columns
from xmc.storage.directories import read_unreplaced
from xmc.storage.manifests import read_manifest
from xmc.storage.run_layout import INDEX, KIND, LABELS, MODEL, STAGES_FILE, has_memory, source_of
from xmc.storage.tensors import OpenTensor, stored_tensors

__all__ = ["LightRun", "normalised_texts", "query_texts", "read_run", "values_at"]


@dataclass(frozen=True)
class LightRun:
    """The parts of a run that answer queries; its files are open, whatever takes their place.

    vectors: of the features, float32 [rows, D], on disk. weights: of the features, float32 [slots]. scales: of the kinds of
    features. normalize: whether embeddings are of unit length. served: number of their first numbers that are used; None for
    all. blocks: label embeddings, on disk, removed ones too. living: the rows of them that were not removed; None for
    all. uids, texts: of the labels that were not removed, in their order.
    """

    vectors: OpenTensor
    weights: Embeddings
    scales: Embeddings
    normalize: bool
    served: int | None
    blocks: Sequence[OpenTensor]
    living: Rows | None
    uids: pa.ChunkedArray
    texts: pa.ChunkedArray


def read_run(directory: Path, verify: bool) -> LightRun:
    """Read a run directory; files of two runs are never taken together.

    Raises StoreError for files that are missing, changed, or do not fit together; InputError for a run that needs more.
    """
    return read_unreplaced(directory, lambda: _read(directory, verify))


def query_texts(queries: Any, allow_empty: bool) -> list[str]:
    """Queries as a list of texts; errors as of `xmc.Retriever.predict`, and InputError for what is no text."""
    if isinstance(queries, str):
        raise InputError("queries must be a list of texts; put a single text into a list.")
    listed = in_order(queries, "queries must be a list of texts, in the order of the answers")
    for place, query in enumerate(listed):
        if not isinstance(query, str):
            raise InputError(
                f"xmc.light takes texts alone, but query {place} is {query!r:.100}, of type {type(query).__name__}."
            )
        require_query_text(query, place, allow_empty)
    return listed


def normalised_texts(texts: Sequence[str]) -> NormalisedTexts:
    """The bytes that are hashed of texts. `pyarrow.array` of a list would load pandas, where that is installed."""
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    buffers = pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))
    return normalised(pa.LargeStringArray.from_buffers(len(encoded), *buffers), pa.system_memory_pool())


def values_at(column: pa.ChunkedArray, rows: Rows) -> list[Any]:
    """The values of a column in some rows [n], in their order."""
    places = pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])
    values: list[Any] = pc.take(column, places, memory_pool=pa.system_memory_pool()).to_pylist()
    return values


def _read(directory: Path, verify: bool) -> LightRun:
    manifest = read_manifest(directory, KIND, verify, quietly=True)
    _refuse_stages(directory, manifest)
    encoder = directory / ("encoder" if "encoder/encoder.json" in manifest["files"] else "query_encoder")
    settings = _settings(directory, encoder / "encoder.json")
    tensors, model = stored_tensors(encoder / "encoder.safetensors"), stored_tensors(directory / MODEL)
    index = read_manifest(directory / INDEX, "index", verify, quietly=True)["properties"]
    if index.get("source") != source_of(manifest):
        raise StoreError(f"The run {directory} holds parts of several runs: its index was built from another model.")
    try:
        vectors, weights = tensors["table.vectors"], tensors["table.log_weights"]
        scales = np.zeros(8, np.float32)
        scales[: len(KINDS)] = [float(scale) for scale in settings["kind_scales"]]
        served = int(model["served"].read()) if "served" in model else None
        normalize = bool(model["normalize"].read())
        if vectors.shape != (settings["table_rows"], settings["dimension"]) or vectors.dtype != np.float32:
            raise ValueError(f"its table is {vectors.dtype} {list(vectors.shape)}")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{encoder} does not hold a static encoder that this version can read: {error!r}") from error
    blocks = place_embeddings(directory / INDEX / "embeddings.arrow")
    labels, living = _labels(directory)
    rows, count = sum(block.shape[0] for block in blocks), len(labels) if living is None else int(living[1])
    if rows != count or blocks[0].shape[1] != (served or vectors.shape[1]):
        raise StoreError(
            f"The run {directory} holds parts of several runs: {rows} embeddings of dimension {blocks[0].shape[1]} for "
            f"{count} labels of dimension {served or vectors.shape[1]}."
        )
    return LightRun(
        vectors=vectors.open(),
        weights=np.exp(weights.read()),
        scales=scales,
        normalize=normalize,
        served=served,
        blocks=[block.open() for block in blocks],
        living=None if living is None else living[0],
        uids=labels["uid"],
        texts=labels["text"],
    )


def _refuse_stages(directory: Path, manifest: Mapping[str, Any]) -> None:
    """InputError for a run whose searches have more stages than encoding and scoring."""
    named = ["a memory of queries"] if has_memory(manifest) else []
    if STAGES_FILE in manifest["files"]:
        named += [f"the stage {stage['name']!r}" for stage in _json(directory / STAGES_FILE)]
    if named:
        raise InputError(
            f"The run {directory} searches with {' and '.join(named)}, which xmc.light has not: load it with xmc.Retriever."
        )


def _settings(directory: Path, file: Path) -> Mapping[str, Any]:
    """The settings of a static encoder; InputError for another one."""
    stored = _json(file)
    try:
        kind = str(stored["kind"])
        if kind == "static":
            return dict(stored["static"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{file} does not describe an encoder: {error!r}") from error
    remedy = f"or write it for onnxruntime: xmc export {directory} DIRECTORY --to onnx" if kind == "transformer" else ""
    raise InputError(
        f"The run {directory} has the encoder {kind!r}, and xmc.light computes the static encoder alone. Load it with "
        f"xmc.Retriever{', ' + remedy if remedy else ''}."
    )


def _labels(directory: Path) -> tuple[pa.Table, tuple[Rows, int] | None]:
    """uid and text of the labels that were not removed; and where some were, the rows of the others, and the rows in all."""
    pool = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps megabytes of what was read for later
    what = f"The labels of the run {directory} cannot be read"
    try:
        table = read_columns(directory / LABELS, ["uid", "text"], what=what, threads=False)
        ids = read_columns(directory / INDEX / "ids.arrow", ["alive"], what=what)
        alive = np.array(ids["alive"].to_pylist(), bool)
    finally:
        pa.set_memory_pool(pool)
    if int(alive.sum()) != len(table):
        raise StoreError(
            f"The run {directory} holds parts of several runs: {alive.sum()} labels in its index, {len(table)} beside."
        )
    return table, None if alive.all() else (np.flatnonzero(alive), len(alive))


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
