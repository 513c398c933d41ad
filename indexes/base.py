"""What a label index is: maximum inner product search over label embeddings that carry the user's own ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["Embeddings", "Exclude", "Ids", "LabelIndex"]

Embeddings = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64] | npt.NDArray[np.object_]
Exclude = Sequence[Sequence[int | str]]


class LabelIndex(ABC):
    """Top-k labels by inner product. Ids are all int64 or all strings, unique; rows may be added and removed."""

    kind: ClassVar[str]
    dimension: int

    @abstractmethod
    def build(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> None:
        """Replace the content by `embeddings` [L, D] float32 with `ids` [L]."""

    @abstractmethod
    def add(self, embeddings: Embeddings, ids: Sequence[int | str] | Ids) -> None:
        """Add labels; an id that is already present is an InputError."""

    @abstractmethod
    def remove(self, ids: Sequence[int | str] | Ids) -> None:
        """Remove labels; an id that is not present is an InputError."""

    @abstractmethod
    def search(self, queries: Embeddings, k: int, exclude: Exclude | None = None) -> tuple[Ids, Embeddings]:
        """The k best labels of each query [n, D]: ids [n, k'] and float32 scores [n, k'], best first.

        k' = min(k, labels). `exclude[i]` are ids never returned for query i. Where fewer than k' labels are left
        for a query, its row ends with id -1 (or "") and score -inf.
        """

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the index as a stored directory (see xmc.store)."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> LabelIndex:
        """Read an index written by `save`, verifying its checksums."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of labels."""
