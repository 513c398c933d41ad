"""FAISS where it is installed, else None."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["faiss"]

faiss: Any
"""The module: of type Any, since its type stubs lack what its Python layer adds."""

# FAISS brings an OpenMP library of its own, which reads this when it is loaded. Its threads would spin while they wait, and
# take the cores from torch's and numba's threads and from other searches: on a busy machine, building took up to 20 times
# as long. What the user has set stands.
_ours = "OMP_WAIT_POLICY" not in os.environ
if _ours:
    os.environ["OMP_WAIT_POLICY"] = "passive"
try:
    faiss = importlib.import_module("faiss")
except ImportError:
    faiss = None
finally:
    if _ours:
        del os.environ["OMP_WAIT_POLICY"]
