"""The exact design: every label is scored."""

from __future__ import annotations

from typing import Any, ClassVar

from xmc.errors import ConfigError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.contract import Design, Devices, Engine
from xmc.indexes.engines.torch_shards import DTYPES, ShardedEngine

__all__ = ["ExactDesign"]


class ExactDesign(Design):
    """The embeddings themselves: every label is scored, 4·D bytes a label. Needs no FAISS, and is faster with it.

    On the processor a search reads the embeddings in main memory, or on disk once loaded; on devices it reads copies there.
    dtype: of the copies: "float32", "bfloat16" or "float16"; with the latter two `rescore` gives exact scores.

    ConfigError for another dtype.
    """

    kind: ClassVar[str] = "exact"

    def __init__(self, dimension: int, dtype: str = "float32") -> None:
        if dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, but is {dtype!r}.")
        self.name, self.dimension, self.dtype = self.kind, dimension, dtype
        self.parameters = {}

    @classmethod
    def from_name(cls, name: str, dimension: int) -> ExactDesign:
        """ "exact", or with the dtype of copies on devices, such as "exact:bfloat16"."""
        return cls(dimension, name.partition(":")[2] or "float32")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ExactDesign:
        """See Design."""
        return cls(int(settings["dimension"]), settings["dtype"])

    def settings(self) -> dict[str, Any]:
        """See Design."""
        return {"dtype": self.dtype}

    def build(self, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """See Design."""
        return ShardedEngine.from_embeddings(embeddings, devices, DTYPES[self.dtype]) if devices else None

    def place(self, engine: Engine | None, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """See Design."""
        return self.build(embeddings, devices)

    def bytes_per_label(self, labels: int) -> float:
        """Of the embeddings in main memory."""
        return 4.0 * self.dimension

    def device_bytes_per_label(self, labels: int) -> float:
        """Of the copies, by their dtype."""
        return float(DTYPES[self.dtype].itemsize * self.dimension)
