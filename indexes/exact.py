"""The exact index."""

from __future__ import annotations

from typing import ClassVar

from xmc.indexes.base import LabelIndex
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.snapshot import Engine

__all__ = ["ExactIndex"]


class ExactIndex(LabelIndex):
    """The embeddings themselves: every label is scored, 4·D bytes a label. Needs no FAISS, and is faster with it."""

    kind: ClassVar[str] = "exact"

    def engine_of(self, embeddings: EmbeddingBlocks) -> Engine | None:
        """None: the search is exact."""
        return None

    def _grown(self, engine: Engine, embeddings: EmbeddingBlocks) -> Engine | None:
        return None
