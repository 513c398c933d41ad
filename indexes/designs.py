"""Index designs by name, and what a design costs before it is built."""

from __future__ import annotations

from xmc.indexes.contract import Design
from xmc.indexes.engines.exact import ExactDesign
from xmc.indexes.engines.faiss import FaissDesign
from xmc.registry import Registry

__all__ = ["DESIGNS", "EXACT_BELOW", "TUNED_FROM", "bytes_per_label", "design_of", "is_exact"]

DESIGNS: Registry[type[Design]] = Registry("index design", {"exact": ExactDesign, "faiss": FaissDesign})
"""Designs by prefix: the part of a name before a colon. A name of no prefix here is a FAISS factory string or storage."""
EXACT_BELOW = 20_000
"""Fewer labels are searched exactly by default: that takes a millisecond for one query, less than to encode its text."""
TUNED_FROM = 100_000
"""This number of labels or more are searched by default as tuning finds best; fewer by a scan of short codes, which learns
in about a second, and finds what tuning would."""


def design_of(name: str, dimension: int) -> Design:
    """The design that `name` stands for, over embeddings of this dimension.

    name: "exact", a storage ("int8"), any FAISS factory string, or a registered prefix, perhaps with ":" and what follows.
    Raises ConfigError for a name that neither DESIGNS nor FAISS knows, DependencyError where FAISS is needed and not there.
    """
    prefix = name.partition(":")[0] if isinstance(name, str) else ""
    return DESIGNS[prefix if prefix in DESIGNS else FaissDesign.kind].from_name(name, dimension)


def is_exact(design: str, labels: int) -> bool:
    """Whether a design, which may be "auto", is known to score all of this number of labels with their full embeddings."""
    return design == "exact" or (design == "auto" and labels < EXACT_BELOW)


def bytes_per_label(design: str, dimension: int, labels: int) -> float:
    """Memory of an index for each label, by its design alone; see Design.bytes_per_label. Raises as `design_of`."""
    return design_of(design, dimension).bytes_per_label(labels)
