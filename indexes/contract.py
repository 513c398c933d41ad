"""What an index design supplies. An index knows rows of embeddings alone: ids, uids and filters by them belong to its user."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

from xmc.arrays import Embeddings, Mask, Rows
from xmc.indexes.blocks import EmbeddingBlocks

__all__ = ["Design", "Devices", "Engine"]

Devices = tuple[str, ...]
"""Where an index runs, as torch names devices; () for the processor. Chosen when an index is opened, and never stored."""


class Engine(Protocol):
    """Search over the first `covered` rows of an index; it never changes. exact: it misses nothing, under any filter."""

    covered: int
    exact: bool

    def search(self, queries: Embeddings, k: int, allowed: Mask | None, share: float) -> tuple[Embeddings, Rows]:
        """Scores and rows [n, k] of queries [n, D], best first, -1 where fewer are found; of the allowed rows, a `share`."""


class Design(ABC):
    """A way to search, by name and parameters; `build` learns from embeddings. Members of the family are in DESIGNS."""

    kind: ClassVar[str]
    """The prefix under which the design is registered, and what a saved index says that it is."""
    name: str
    dimension: int
    parameters: dict[str, Any] | None = None

    @classmethod
    @abstractmethod
    def from_name(cls, name: str, dimension: int) -> Design:
        """The design that a configuration names; ConfigError for one that there is not."""

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Design:
        """The design of a saved index: from what `settings` gave, and its `dimension`; KeyError where a value lacks."""
        return cls.from_name(settings["design"], int(settings["dimension"]))

    def settings(self) -> dict[str, Any]:
        """JSON values that are stored with an index."""
        return {"design": self.name}

    @abstractmethod
    def build(self, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """An engine over all rows; None where each search reads the embeddings themselves. InputError for too few rows."""

    def extend(self, engine: Engine, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """An engine over all rows, where `engine`, which stays as it is, covers the first of them."""
        return self.build(embeddings, devices)

    def refill(self, engine: Engine, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """An engine over other rows, with what `engine` learned from its own; None where rows are too few."""
        return self.build(embeddings, devices)

    def place(self, engine: Engine | None, embeddings: EmbeddingBlocks, devices: Devices) -> Engine | None:
        """The engine over the same rows on other devices; `engine` itself where a design runs on the processor alone."""
        return engine

    def where(self, engine: Engine | None, devices: Devices) -> str:
        """Where an engine runs, in words: a design may leave devices unused."""
        return ", ".join(devices) or "cpu"

    @abstractmethod
    def bytes_per_label(self, labels: int) -> float:
        """Memory of an index over this number of labels, for each; float32 embeddings on disk are not part of it."""

    def device_bytes_per_label(self, labels: int) -> float:
        """The same, of copies on devices."""
        return self.bytes_per_label(labels)

    def save(self, engine: Engine, directory: Path) -> None:  # noqa: B027
        """Write what `load` needs; nothing by default."""

    def load(self, directory: Path, embeddings: EmbeddingBlocks, covered: int, devices: Devices) -> Engine | None:
        """The engine that `save` wrote, over the first `covered` rows; built again by default."""
        return self.build(embeddings, devices)
