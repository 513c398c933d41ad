"""The registries of the package, and a context after which they hold what they held before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xmc.config import ENCODER_SECTIONS, LABEL_VECTOR_SECTIONS, LOSS_SECTIONS, NEGATIVES_SECTIONS
from xmc.data.readers import READERS
from xmc.encoders.registry import ENCODERS
from xmc.indexes.designs import DESIGNS
from xmc.kernels.losses import LOSSES
from xmc.kernels.reductions import REDUCTIONS
from xmc.registry import Registry
from xmc.search.stages import STAGES
from xmc.training.negatives import NEGATIVES
from xmc.training.terms import TERMS

__all__ = ["FAMILIES", "members_restored"]

FAMILIES: tuple[Registry[Any], ...] = (
    ENCODER_SECTIONS, LABEL_VECTOR_SECTIONS, LOSS_SECTIONS, NEGATIVES_SECTIONS,
    READERS, ENCODERS, DESIGNS, LOSSES, REDUCTIONS, STAGES, NEGATIVES, TERMS,
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
