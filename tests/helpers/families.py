"""The registries of the package, contexts after which they hold what they held before, and members from outside."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from xmc.config import ENCODER_SECTIONS, LABEL_VECTOR_SECTIONS, LOSS_SECTIONS, NEGATIVES_SECTIONS
from xmc.data.readers import READERS
from xmc.encoders.registry import ENCODERS
from xmc.indexes.designs import DESIGNS
from xmc.kernels.losses import LOSSES
from xmc.kernels.reductions import REDUCTIONS
from xmc.metrics import METRICS
from xmc.registry import Registry
from xmc.search.stages import STAGES
from xmc.training.negatives import NEGATIVES
from xmc.training.terms import TERMS

__all__ = ["FAMILIES", "members_restored", "toys_registered"]

FAMILIES: tuple[Registry[Any], ...] = (
    ENCODER_SECTIONS, LABEL_VECTOR_SECTIONS, LOSS_SECTIONS, NEGATIVES_SECTIONS,
    READERS, ENCODERS, DESIGNS, LOSSES, REDUCTIONS, STAGES, NEGATIVES, TERMS, METRICS,
)  # fmt: skip


@contextmanager
def members_restored() -> Iterator[None]:
    """What is registered inside is taken back at the end, so that tests after it see the package alone."""
    before = [set(family) for family in FAMILIES]
    try:
        yield
    finally:
        for family, names in zip(FAMILIES, before, strict=True):
            for name in set(family) - names:
                family.unregister(name)


@contextmanager
def toys_registered(*names: str) -> Iterator[SimpleNamespace]:
    """Modules of the folder `toys`, imported, which registers their members; forgotten at the end."""
    with members_restored():
        try:
            yield SimpleNamespace(**{name: importlib.import_module(f"toys.{name}") for name in names})
        finally:
            for name in names:
                sys.modules.pop(f"toys.{name}", None)
