"""What tests of calibrated runs share."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds import calibrated_run, wordnet_part

from xmc.data.dataset import Dataset


@pytest.fixture(scope="module")
def data() -> Dataset:
    return wordnet_part(1500)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept 450 queries aside, calibrated on them."""
    return calibrated_run(data, tmp_path_factory.mktemp("calibration") / "run", 60)
