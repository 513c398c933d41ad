"""Indexes by name, and from disk."""

from __future__ import annotations

from pathlib import Path

from xmc.errors import StoreError
from xmc.indexes.base import LabelIndex
from xmc.indexes.designs import factory_of
from xmc.indexes.exact import ExactIndex
from xmc.indexes.faiss import FaissIndex
from xmc.storage.directories import read_manifest, read_unreplaced

__all__ = ["build_index", "load_index"]

_KINDS: dict[str, type[LabelIndex]] = {ExactIndex.kind: ExactIndex, FaissIndex.kind: FaissIndex}


def build_index(design: str, dimension: int, rescore: int = 0) -> LabelIndex:
    """An empty index: "exact", a storage of xmc.indexes.designs ("int8"), or any FAISS factory string; call `build` on it.

    rescore: see LabelIndex.search; exact search has nothing to score again.

    Raises ConfigError for a string that FAISS does not know, DependencyError where FAISS is not installed.
    """
    if design == "exact":
        return ExactIndex(dimension)
    return FaissIndex(dimension, factory_of(design), rescore=rescore)


def load_index(directory: str | Path, source: str | None = None) -> LabelIndex:
    """Read an index saved by any kind; see LabelIndex.load. An index that is saved over it meanwhile is not mixed in."""

    def read() -> LabelIndex:
        kind = read_manifest(directory, "index", verify=False)["properties"].get("index")
        if kind not in _KINDS:
            raise StoreError(f"{directory} holds an index of the unknown kind {kind!r}.")
        return _KINDS[kind].load(directory, source)

    return read_unreplaced(directory, read)
