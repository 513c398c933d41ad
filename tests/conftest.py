"""Shared test set-up: what must be in the environment before torch or triton are imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Tests run in two processes; threads that spin while they wait would take the cores from each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing is written into the cache of the user who runs the tests; each process of them has its own.
os.environ["XMC_CACHE"] = tempfile.mkdtemp(prefix="xmc-cache-")

import pytest
import torch

atexit.register(shutil.rmtree, os.environ["XMC_CACHE"], ignore_errors=True)
if not torch.cuda.is_available():  # with a GPU the kernels run on it, unless TRITON_INTERPRET=1 is set outside
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, or where Triton's kernels are interpreted."""
    if torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and TRITON_INTERPRET not set"))
