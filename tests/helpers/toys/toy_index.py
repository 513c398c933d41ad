"""An index design from outside of the package: all embeddings in one matrix, multiplied by numpy."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xmc.arrays import Embeddings, Mask, Rows
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.contract import Design, Devices
from xmc.indexes.designs import DESIGNS


class ToyMatrix:
    """Every row is scored; every score is found times `scale`."""

    exact = True

    def __init__(self, embeddings: Embeddings, scale: float) -> None:
        self.embeddings, self.scale, self.covered = embeddings, scale, len(embeddings)

    def search(self, queries: Embeddings, k: int, allowed: Mask | None, share: float) -> tuple[Embeddings, Rows]:
        scores = self.scale * (queries @ self.embeddings.T)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, rows, 1)
        return best, np.where(np.isneginf(best), -1, rows)


class ToyMatrixDesign(Design):
    """The design "toy-matrix", or "toy-matrix:2" for scores twice as high."""

    kind: ClassVar[str] = "toy-matrix"

    def __init__(self, name: str, dimension: int) -> None:
        self.name, self.dimension = name, dimension
        self.scale = float(name.partition(":")[2] or 1)

    @classmethod
    def from_name(cls, name: str, dimension: int) -> ToyMatrixDesign:
        return cls(name, dimension)

    def build(self, embeddings: EmbeddingBlocks, devices: Devices) -> ToyMatrix:
        return ToyMatrix(np.array(embeddings.joined()), self.scale)

    def bytes_per_label(self, labels: int) -> float:
        return 4.0 * self.dimension


DESIGNS.register("toy-matrix", ToyMatrixDesign)
