"""Where the system cannot exchange two names in one step, a process that is killed between the renames loses nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xmc.errors import StoreError
from xmc.storage.directories import atomic_directory, read_unreplaced
from xmc.storage.manifests import TENSORBOARD, read_manifest, require_free

KILLED = """
import os, signal, sys
from pathlib import Path
from xmc.storage import exchange
from xmc.storage.directories import atomic_directory

exchange.exchange_at_once = lambda first, second: False  # as on a system without it
rename, left = os.replace, [int(sys.argv[2])]

def killed_between(source, destination):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, destination)

with atomic_directory(Path(sys.argv[1]), "run") as temporary:
    (temporary / "a.txt").write_text("two")
    os.replace = killed_between
os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path: Path, text: str) -> None:
    with atomic_directory(path, "run") as temporary:
        (temporary / "a.txt").write_text(text)


def killed_after(path: Path, renames: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL


def read(path: Path) -> str:
    read_manifest(path, "run")
    return (path / "a.txt").read_text()


def free(path: Path) -> str:
    with pytest.raises(StoreError, match="already holds a run"):
        require_free(path, "run")
    return (path / "a.txt").read_text()


@pytest.mark.parametrize(("renames", "text"), [(0, "one"), (1, "one"), (2, "two"), (3, "two"), (4, "two")])
@pytest.mark.parametrize("opened", [read, lambda path: read_unreplaced(path, lambda: read(path)), free])
def test_it_is_old_or_new_and_never_neither(
    tmp_path: Path, renames: int, text: str, opened: Callable[[Path], str]
) -> None:
    path = tmp_path / "run"
    write(path, "one")
    (path / TENSORBOARD).mkdir()
    (path / TENSORBOARD / "events").write_text("logs")
    killed_after(path, renames)
    assert path.exists() == (renames != 1)
    assert opened(path) == text


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_the_next_write_goes_on_and_leaves_nothing(
    tmp_path: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    write(path, "one")
    (path / TENSORBOARD).mkdir()
    (path / TENSORBOARD / "events").write_text("logs")
    killed_after(path, renames)
    monkeypatch.setattr("xmc.storage.temporaries.ABANDONED_AFTER", -1.0)
    write(path, "three")
    assert read(path) == "three"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert (path / TENSORBOARD / "events").read_text() == "logs"
