"""Saved indexes: embeddings, the id of each row, and what the design writes. Where an index ran is not among it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from xmc.arrays import Mask
from xmc.errors import ConfigError, StoreError, boundary
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.contract import Design
from xmc.indexes.designs import DESIGNS
from xmc.indexes.identifiers import LabelIds
from xmc.indexes.placement import devices_of
from xmc.indexes.versions import IndexVersion
from xmc.storage.arrow import read_columns, read_embeddings, write_arrow_file, write_embeddings
from xmc.storage.directories import atomic_directory
from xmc.storage.manifests import MANIFEST, read_manifest

__all__ = ["StoredIndex", "read_index", "read_rows", "write_index"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredIndex:
    """An index as it is saved: rows, and the id of each, int64 or strings [rows], removed ones too."""

    held: IndexVersion
    ids: LabelIds


def write_index(directory: Path, stored: StoredIndex, source: str) -> None:
    """Write an index as a stored directory: whole or not at all.

    source: a fingerprint of what the embeddings were made from, which `read_index` can demand.
    """
    held, ids = stored.held, stored.ids
    with atomic_directory(
        directory,
        "index",
        index=held.design.kind,
        dimension=held.dimension,
        labels=len(held),
        source=source,
        rescore=held.rescore,
        covered=0 if held.engine is None else held.engine.covered,
        measured=held.measured,
        **held.design.settings(),
    ) as path:
        write_embeddings((block for _, block in held.blocks), held.dimension, path / "embeddings.arrow")
        alive = np.ones(len(ids), bool) if held.alive is None else held.alive
        kind = pa.string() if ids.dtype == object else pa.int64()
        table = pa.table({"id": pa.array(ids, kind), "alive": pa.array(alive)})
        write_arrow_file(table, path / "ids.arrow")
        if held.engine is not None:
            held.design.save(held.engine, path)


def read_index(directory: Path, source: str | None = None, device: str | Sequence[str] = "auto") -> StoredIndex:
    """Read an index; its embeddings stay on disk, memory-mapped, until they are needed.

    source: the fingerprint that the index must have been saved with. device: where to run it, see `devices_of`.

    Raises StoreError, which names a file that is missing, truncated or changed, an unknown kind, or both fingerprints;
    ConfigError for a device that is not there.
    """
    settings = read_manifest(directory, "index")["properties"]
    kind = settings.get("index")
    if kind not in DESIGNS:
        raise StoreError(
            f"{directory} holds an index of the unknown kind {kind!r}; import what registers this design before it is read."
        )
    if source is not None and settings.get("source") != source:
        raise StoreError(
            f"{directory} indexes other embeddings: it was built from {settings.get('source') or 'unnamed ones'} "
            f"({settings.get('labels')} labels of dimension {settings.get('dimension')}), and {source} is asked "
            f"for. Index the labels again."
        )
    said = f"{directory / MANIFEST} does not describe an index"
    with boundary(StoreError, said):
        measured = dict(settings["measured"])
        dimension, rescore, covered = (int(settings[name]) for name in ("dimension", "rescore", "covered"))
    embeddings, ids, alive = read_rows(directory, dimension)  # before anything is made for what the manifest says
    if not 0 <= covered <= len(ids) or rescore < 0:
        raise StoreError(f"{said}: it covers {covered} of {len(ids)} rows, with rescore {rescore}.")
    with boundary(StoreError, said):
        try:
            design: Design = DESIGNS[kind].from_settings(settings)
        except ConfigError as error:
            raise ValueError(str(error)) from error
    devices = devices_of(device, math.ceil(len(ids) * design.device_bytes_per_label(max(1, len(ids)))))
    if settings.get("devices"):  # an older manifest, which says where the index ran
        logger.info(
            "%s was saved where it ran on %s; it runs on %s now",
            directory,
            ", ".join(settings["devices"]),
            ", ".join(devices) or "the processor",
        )
    engine = design.load(directory, embeddings, covered, devices) if len(ids) else None
    held = IndexVersion(design, embeddings, None if alive.all() else alive, engine, rescore, devices, measured)
    return StoredIndex(held, ids)


def read_rows(directory: Path, dimension: int) -> tuple[EmbeddingBlocks, LabelIds, Mask]:
    """Embeddings float32 [n, D] of the rows of a saved index, their ids, and which of them were not removed since.

    Raises StoreError, which names a file that cannot be read, and where they are not embeddings [n, dimension] of n labels.
    """
    embeddings = EmbeddingBlocks(read_embeddings(directory / "embeddings.arrow"))
    with boundary(StoreError, f"{directory / 'ids.arrow'} cannot be read"):
        table = read_columns(directory / "ids.arrow", ["id", "alive"])
        column, alive = table["id"], table["alive"]
        if not pa.types.is_boolean(alive.type) or not (
            pa.types.is_string(column.type) or pa.types.is_int64(column.type)
        ):
            raise ValueError(f"it has columns of {column.type} and {alive.type}")
        if column.null_count or alive.null_count:
            raise ValueError("it lacks some of its values")
        ids, living = column.to_numpy(zero_copy_only=False), alive.to_numpy()
        ids = ids.astype(object if pa.types.is_string(column.type) else np.int64)
    if len(embeddings) != len(ids) or embeddings.dimension != dimension:
        raise StoreError(
            f"{directory} has {len(ids)} ids, but {len(embeddings)} embeddings of dimension {embeddings.dimension} "
            f"where the dimension is {dimension}."
        )
    return embeddings, ids, living
