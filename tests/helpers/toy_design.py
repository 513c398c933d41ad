"""An index design from outside of the package, in one file: importing it registers it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.contract import Design, Devices
from xmc.indexes.designs import DESIGNS


class ToyEngine:
    """A copy of all embeddings, multiplied by numpy: every score is found times `scale`."""

    exact = True

    def __init__(self, embeddings: Any, scale: float) -> None:
        self.embeddings, self.scale, self.covered = embeddings, scale, len(embeddings)

    def search(self, queries: Any, k: int, allowed: Any, share: float) -> tuple[Any, Any]:
        scores = self.scale * (queries @ self.embeddings.T)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, rows, 1).astype(np.float32)
        return best, np.where(np.isneginf(best), -1, rows)


class ToyDesign(Design):
    """ "toy", or "toy:2" for scores twice as high."""

    kind: ClassVar[str] = "toy"

    def __init__(self, name: str, dimension: int) -> None:
        self.name, self.dimension = name, dimension
        self.scale = float(name.partition(":")[2] or 1)

    @classmethod
    def from_name(cls, name: str, dimension: int) -> ToyDesign:
        return cls(name, dimension)

    def build(self, embeddings: EmbeddingBlocks, devices: Devices) -> ToyEngine:
        return ToyEngine(np.array(embeddings.joined()), self.scale)

    def bytes_per_label(self, labels: int) -> float:
        return 4.0 * self.dimension


DESIGNS.register("toy", ToyDesign)
