"""What tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import write_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))
