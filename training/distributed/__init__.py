"""Several processes, one run: queries are data-parallel, labels are split by rank."""

from __future__ import annotations

from xmc.training.distributed.group import distributed
from xmc.training.distributed.world import World

__all__ = ["World", "distributed"]
