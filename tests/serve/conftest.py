"""What tests of the server share."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds import colours, tiny_config

import xmc


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("served") / "run"
    xmc.train(colours(), tiny_config(epochs=8), directory)
    return directory
