"""The labels of a saved index, without its engine: embeddings stay on disk, memory-mapped, until they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from xmc.errors import StoreError
from xmc.indexes.blocks import EmbeddingBlocks, Mask
from xmc.indexes.identifiers import Ids
from xmc.storage.arrow import read_embeddings

__all__ = ["read_labels"]


def read_labels(directory: Path, dimension: int) -> tuple[EmbeddingBlocks, Ids, Mask]:
    """Embeddings float32 [n, D] of the labels of a saved index, their ids, and which of them were not removed since.

    Raises StoreError, which names a file that cannot be read, and where they are not embeddings [n, dimension] of n labels.
    """
    embeddings = EmbeddingBlocks(read_embeddings(directory / "embeddings.arrow"))
    try:
        table = pa.ipc.open_file(pa.memory_map(str(directory / "ids.arrow"))).read_all()
        column, alive = table["id"], table["alive"].to_numpy()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"{directory / 'ids.arrow'} cannot be read: {error}") from error
    ids = column.to_numpy(zero_copy_only=False)
    ids = ids.astype(object if pa.types.is_string(column.type) else np.int64)
    if len(embeddings) != len(ids) or embeddings.dimension != dimension:
        raise StoreError(
            f"{directory} has {len(ids)} ids, but {len(embeddings)} embeddings of dimension {embeddings.dimension} "
            f"where the dimension is {dimension}."
        )
    return embeddings, ids, alive
