"""FAISS where it is installed, else None."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["faiss"]

faiss: Any
"""The module: of type Any, since its type stubs lack what its Python layer adds."""
try:
    faiss = importlib.import_module("faiss")
except ImportError:
    faiss = None
