"""SIGKILL at random moments while clients change labels: nothing that was confirmed is lost, nothing is made twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from server_kills import kill_and_check


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 12), (2, 8)])
def test_kills_lose_no_change(remembering: Path, tmp_path: Path, workers: int, kills: int) -> None:
    counts = kill_and_check(remembering, tmp_path, kills, workers, seed=workers)
    assert counts["changes confirmed"] > 20
