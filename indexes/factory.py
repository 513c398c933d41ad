"""Indexes by name, and from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xmc.arrays import Embeddings
from xmc.errors import ConfigError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.checks import require_matrix
from xmc.indexes.contract import Devices
from xmc.indexes.designs import design_of
from xmc.indexes.label_index import LabelIndex
from xmc.indexes.placement import devices_of
from xmc.indexes.tuning import automatic_version
from xmc.indexes.versions import IndexVersion
from xmc.storage.directories import read_unreplaced

__all__ = ["build_index", "index_version", "load_index"]


def index_version(
    design: str, embeddings: Embeddings, tuning_queries: Embeddings, rescore: int = 0, devices: Devices = ()
) -> IndexVersion:
    """An index over label embeddings float32 [L, D], which must not change afterwards; label `i` is row `i`.

    design: as of `build_index`, or "auto": exact for few labels, else tuned with `tuning_queries` [n, D].
    Raises InputError for embeddings that are NaN or infinite, or too few for the design; ConfigError as `build_index`, and for
    `rescore` with "auto".
    """
    dimension = embeddings.shape[1]
    blocks = EmbeddingBlocks([require_matrix(embeddings, dimension, "label embeddings")])
    if design != "auto":
        return IndexVersion.from_embeddings(design_of(design, dimension), blocks, rescore, devices)
    if rescore:
        raise ConfigError("rescore is for a design that is named; tuning, which auto stands for, chooses it.")
    return automatic_version(blocks, tuning_queries, devices)


def build_index(design: str, dimension: int, rescore: int = 0, device: str | Sequence[str] = "auto") -> LabelIndex:
    """An empty index: "exact", a storage ("int8"), a FAISS factory string, or a registered design; call `build` on it.

    rescore: see LabelIndex.search; exact search has nothing to score again.
    device: where it runs, which is not stored with it: "auto" for the GPU, where there is one and the design can use it;
        "cpu"; a device of torch's; or a list of devices, between which exact search splits the labels.

    Raises ConfigError for a string that FAISS does not know and a device that is not there, DependencyError where FAISS is not
    installed.
    """
    return LabelIndex(design_of(design, dimension), rescore, devices_of(device))


def load_index(directory: str | Path, source: str | None = None, device: str | Sequence[str] = "auto") -> LabelIndex:
    """Read a saved index of any design; embeddings stay on disk, memory-mapped, until they are needed.

    source: the fingerprint that the index must have been saved with. device: as of `build_index`.
    An index that is saved over it meanwhile is not mixed in.

    Raises StoreError, which names a file that is missing, truncated or changed, or both fingerprints; ConfigError for a device
    that is not there.
    """
    return read_unreplaced(directory, lambda: LabelIndex.load(directory, source, device))
