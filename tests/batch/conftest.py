"""What tests of jobs share."""

from __future__ import annotations

from pathlib import Path

import pytest

import xmc


@pytest.fixture(scope="module")
def retriever(run: Path) -> xmc.Retriever:
    """Of the run that a test module has."""
    return xmc.Retriever.load(run)
