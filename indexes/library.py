"""FAISS where it is installed, else None; DependencyError where two of its distributions are."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

from xmc.storage.libraries import faiss_distributions, refuse_two_faiss

__all__ = ["faiss", "why_no_faiss"]

logger = logging.getLogger(__name__)

faiss: Any
"""The module: of type Any, since its type stubs lack what its Python layer adds."""
why_no_faiss = ""
"""Why FAISS, which is installed, cannot be loaded: a build for CUDA lacks CUDA's libraries, say."""

refuse_two_faiss()

# FAISS brings an OpenMP library of its own, which reads this when it is loaded. Its threads would spin while they wait, and
# take the cores from torch's and numba's threads and from other searches: on a busy machine, building took up to 20 times
# as long. What the user has set stands.
_ours = "OMP_WAIT_POLICY" not in os.environ
if _ours:
    os.environ["OMP_WAIT_POLICY"] = "passive"
try:
    faiss = importlib.import_module("faiss")
except (ImportError, RuntimeError, OSError) as error:
    faiss = None
    absent = isinstance(error, ModuleNotFoundError) and error.name == "faiss"
    if not absent and faiss_distributions():
        why_no_faiss = str(error).strip()
        logger.warning("FAISS is installed and cannot be loaded, so it is done without: %s", why_no_faiss)
finally:
    if _ours:
        del os.environ["OMP_WAIT_POLICY"]
