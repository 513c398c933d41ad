"""What tests of search share."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds import colours, tiny_config

import xmc


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("retriever") / "run"
    xmc.train(colours(), tiny_config(epochs=8), directory)
    return directory
