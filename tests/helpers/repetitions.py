"""How often tests repeat what a random moment decides."""

from __future__ import annotations

import os

__all__ = ["kills"]


def kills(few: int) -> int:
    """How many times something is killed: `few`, or as the nightly tests have it, XMC_KILLS."""
    return int(os.environ.get("XMC_KILLS", few))
