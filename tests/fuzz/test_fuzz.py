"""Damaged inputs of every format end in a sound result or in a sentence; nothing else may come of them.

XMC_CASES: number of cases of each target in the slow tests, in place of 100 (2,000 of every format take an hour of processor
time); `make test-nightly` has 10,000. Of targets whose cases are dear there are fewer, in proportion: see `Target.slow`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATHS = (HERE, HERE.parent / "helpers", HERE.parent / "data")
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PATHS))}
GROUPS = {
    "texts": ("file csv", "file tsv", "file json", "file jsonl", "file csv.*", "file jsonl.*"),
    "columns": ("file *parquet", "file *arrow", "file *feather"),
    "layouts": ("layout *",),
    "stored": ("index *", "data set*", "token cache", "checkpoint*", "journal"),
    "runs": ("run *", "job*", "sentence-transformers"),
    "values": (
        "config *",
        "where",
        "request",
        "Query",
        "label *",
        "text form",
        "query metrics",
        "images *",
        "vocabulary",
    ),
}
"""Patterns of names of targets; each group is a test, so that a failure says where."""


def fuzz(tmp_path: Path, *arguments: str) -> tuple[dict[str, dict[str, int]], str]:
    """Counts of outcomes by target, and what the program said."""
    command = [
        sys.executable,
        "-m",
        "fuzzing",
        "--json",
        str(tmp_path / "counts.json"),
        "--keep",
        str(tmp_path / "kept"),
    ]
    done = subprocess.run([*command, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=6000)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    counts: dict[str, dict[str, int]] = json.loads((tmp_path / "counts.json").read_text())
    return counts, done.stdout


def require_sound(counts: dict[str, dict[str, int]], said: str) -> None:
    assert counts
    assert not {name: found for name, found in counts.items() if set(found) - {"sound", "refused"}}, said


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_many_damaged_inputs(group: str, tmp_path: Path) -> None:
    counts, said = fuzz(
        tmp_path, "--scaled", "--cases", os.environ.get("XMC_CASES", "100"), "--targets", *GROUPS[group]
    )
    print(said)
    require_sound(counts, said)
    assert all(found.get("refused") for found in counts.values())


def test_every_target_is_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in PATHS:
        monkeypatch.syspath_prepend(str(path))
    names = importlib.import_module("fuzzing.all_targets").TARGETS
    patterns = [pattern for patterns in GROUPS.values() for pattern in patterns]
    for name in names:
        assert any(fnmatch(name, pattern) for pattern in patterns), name
