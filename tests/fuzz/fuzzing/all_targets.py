"""Every target: importing it registers them all."""

from __future__ import annotations

import importlib

from fuzzing.targets import TARGETS

__all__ = ["TARGETS"]

for _module in ("of_files", "of_layouts", "of_stored", "of_values", "of_tables", "of_evidence", "of_models"):
    importlib.import_module(f"fuzzing.{_module}")
