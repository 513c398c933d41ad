"""The exact index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from xmc.errors import ConfigError
from xmc.indexes.base import LabelIndex
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.device import DTYPES, DeviceEngine, require_device
from xmc.indexes.snapshot import Engine

__all__ = ["ExactIndex"]


class ExactIndex(LabelIndex):
    """The embeddings themselves: every label is scored, 4·D bytes a label. Needs no FAISS, and is faster with it.

    devices: such as ("cuda:0", "cuda:1"): labels are copied to them in equal parts and searched there; none by default,
        where searches read the embeddings in main memory, or on disk once loaded.
    dtype: of the copies: "float32", "bfloat16" or "float16"; with the latter two `rescore` gives exact scores.

    ConfigError for a device that is not there, or another dtype.
    """

    kind: ClassVar[str] = "exact"

    def __init__(self, dimension: int, devices: Sequence[str] = (), dtype: str = "float32", rescore: int = 0) -> None:
        super().__init__(dimension, rescore)
        if dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, but is {dtype!r}.")
        self.devices, self.dtype = tuple(require_device(device) for device in devices), dtype

    def engine_of(self, embeddings: EmbeddingBlocks) -> Engine | None:
        """See LabelIndex; None where the search reads the embeddings themselves."""
        return DeviceEngine.over(embeddings, self.devices, DTYPES[self.dtype]) if self.devices else None

    def _grown(self, engine: Engine, embeddings: EmbeddingBlocks) -> Engine | None:
        return self.engine_of(embeddings)

    def _recast(self, engine: Engine, embeddings: EmbeddingBlocks) -> Engine | None:
        return self.engine_of(embeddings)

    def _settings(self) -> dict[str, Any]:
        return {"devices": list(self.devices), "dtype": self.dtype}

    @classmethod
    def _restored(cls, settings: dict[str, Any]) -> ExactIndex:
        return cls(int(settings["dimension"]), settings["devices"], settings["dtype"], int(settings["rescore"]))
