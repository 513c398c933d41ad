"""Where the user's cache is, and how a cache stays below a size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xmc.storage.caches import LEFT_BEHIND_AFTER, keep_below, user_cache


def test_the_users_cache_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("XMC_CACHE", "/mine")
    assert user_cache() == Path("/mine")
    monkeypatch.delenv("XMC_CACHE")
    assert user_cache() == Path("/caches/xmc")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert user_cache() == Path("/home/somebody/.cache/xmc")


def test_only_files_of_the_pattern_go_the_oldest_first(tmp_path: Path) -> None:
    names = ["kept-1", "kept-2", "kept-3", "other"]
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1_000 + age, 1_000 + age))
    keep_below(tmp_path, "kept-*", 300)
    assert len(list(tmp_path.iterdir())) == 4
    keep_below(tmp_path, "kept-*", 299)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["kept-2", "kept-3", "other"]
    keep_below(tmp_path, "kept-*", 0)
    assert [file.name for file in tmp_path.iterdir()] == ["other"]
    keep_below(tmp_path / "none", "kept-*", 0)


def test_what_a_killed_process_left_goes_when_it_is_old(tmp_path: Path) -> None:
    old, new = tmp_path / ".kept-1.abc.tmp", tmp_path / ".kept-2.abc.tmp"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (new.stat().st_mtime - LEFT_BEHIND_AFTER - 1,) * 2)
    keep_below(tmp_path, "kept-*", 0)
    assert list(tmp_path.iterdir()) == [new]
