"""SIGKILL at random moments while clients change labels: nothing that was confirmed is lost, nothing is made twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from repetitions import kills
from server_kills import kill_and_check


@pytest.mark.parametrize(
    ("workers", "times"),
    [pytest.param(1, 4, marks=pytest.mark.slow), pytest.param(2, 4, marks=pytest.mark.nightly)],
)
def test_kills_lose_no_change(remembering: Path, tmp_path: Path, workers: int, times: int) -> None:
    counts = kill_and_check(remembering, tmp_path, kills(times), workers, seed=workers)
    assert counts["changes confirmed"] > 20
