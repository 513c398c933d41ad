"""A stored directory holds exactly what its manifest lists, at every level, and a manifest is read whatever is in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xmc.errors import StoreError
from xmc.storage.directories import atomic_directory
from xmc.storage.files import MOST_BYTES_OF_JSON, atomic_file
from xmc.storage.manifests import LOG, MANIFEST, TENSORBOARD, listed_files, read_manifest, verify_all

DIGEST = "0" * 64


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A stored directory with files in folders, and another stored directory in it."""
    with atomic_directory(tmp_path / "run", "run") as directory:
        (directory / "a.txt").write_text("one")
        (directory / "sub" / "deeper").mkdir(parents=True)
        (directory / "sub" / "b.txt").write_text("two")
        (directory / "sub" / "deeper" / "c.txt").write_text("three")
        (directory / "empty").mkdir()
        with atomic_directory(directory / "index", "index") as inner:
            (inner / "rows").mkdir()
            (inner / "rows" / "d.txt").write_text("four")
    return tmp_path / "run"


def test_all_files_are_listed_and_nothing_else_is_there(run: Path) -> None:
    assert set(read_manifest(run, "run")["files"]) == {"a.txt", "sub/b.txt", "sub/deeper/c.txt", "index/manifest.json"}
    assert listed_files(run, "run") == {*read_manifest(run, "run")["files"], "index/rows/d.txt"}
    assert not (run / "empty").exists()
    verify_all(run, "run")


@pytest.mark.parametrize(
    "name",
    [
        "more.txt",
        "calibration/calibration.json",
        "sub/adapter_model.safetensors",
        "sub/deeper/config.json",
        "sub/manifest.json",
        "sub/metrics.jsonl",
        "sub/other/e.txt",
        "index/more.txt",
        "index/rows/more.txt",
        "index/rows/manifest.json",
        "sub/tensorboard/events",
    ],
)
def test_what_is_not_listed_is_refused(run: Path, name: str) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("{}")
    first = next(folder for folder in (*reversed((run / name).relative_to(run).parents[:-1]), Path(name)) if folder)
    with pytest.raises(StoreError, match=f"{run}/{first}.* is not among the files .*Move it away"):
        read_manifest(run, "run")
    read_manifest(run, "run", verify=False)


def test_an_empty_folder_is_refused_where_none_was_written(run: Path) -> None:
    (run / "sub" / "backbone").mkdir()
    with pytest.raises(StoreError, match="sub/backbone is not among the files"):
        read_manifest(run, "run")


def test_logs_cards_and_hidden_files_may_be_beside(run: Path) -> None:
    (run / LOG).write_text("{}\n")
    (run / "README.md").write_text("# A run\n")
    (run / TENSORBOARD).mkdir()
    (run / TENSORBOARD / "events").write_text("")
    (run / ".cache").mkdir()
    (run / ".cache" / "known").write_text("")
    (run / "sub" / ".DS_Store").write_text("")
    verify_all(run, "run")


def damaged(run: Path, damage: Callable[[dict[str, Any]], object], file: str = MANIFEST) -> None:
    manifest = json.loads((run / file).read_text())
    damage(manifest)
    (run / file).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["a.txt", "sub/deeper/c.txt", "index/manifest.json"])
def test_a_file_whose_entry_was_removed_is_refused(run: Path, name: str) -> None:
    damaged(run, lambda manifest: manifest["files"].pop(name))
    with pytest.raises(StoreError, match="is not among the files"):
        read_manifest(run, "run")


def test_a_file_that_an_inner_manifest_lost_is_refused_by_the_outer_one(run: Path) -> None:
    damaged(run, lambda manifest: manifest["files"].clear(), "index/manifest.json")
    with pytest.raises(StoreError, match="index/rows is not among the files"):
        read_manifest(run, "run")


def test_files_of_directories_inside_are_verified_with_all_others(run: Path) -> None:
    (run / "index" / "rows" / "d.txt").write_text("Four")
    read_manifest(run, "run")
    with pytest.raises(StoreError, match=r"d\.txt does not match its SHA-256"):
        verify_all(run, "run")


def linked(run: Path, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    (run / name).rename(target)
    (run / name).symlink_to(target)


def test_links_that_lead_out_are_refused(run: Path, tmp_path: Path) -> None:
    linked(run, "a.txt", tmp_path / "elsewhere" / "a.txt")
    with pytest.raises(StoreError, match="lies outside"):
        read_manifest(run, "run")
    (run / "a.txt").unlink()
    (tmp_path / "elsewhere" / "a.txt").rename(run / "a.txt")
    read_manifest(run, "run")
    linked(run, "sub", tmp_path / "elsewhere" / "sub")
    with pytest.raises(StoreError, match="sub is a link to a folder"):
        read_manifest(run, "run")


def test_other_things_in_the_place_of_a_file_are_named(run: Path) -> None:
    (run / "a.txt").unlink()
    (run / "a.txt").mkdir()
    with pytest.raises(StoreError, match=r"a\.txt is a folder"):
        read_manifest(run, "run")
    (run / "a.txt").rmdir()
    os.mkfifo(run / "a.txt")
    with pytest.raises(StoreError, match=r"a\.txt is a folder, or otherwise no file"):
        read_manifest(run, "run")


def test_a_file_in_the_place_of_a_folder_is_named(run: Path) -> None:
    (run / "sub" / "deeper" / "c.txt").unlink()
    (run / "sub" / "deeper").rmdir()
    (run / "sub" / "deeper").write_text("three")
    with pytest.raises(StoreError, match="sub/deeper"):
        read_manifest(run, "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe{}", "codec can't decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"kind": "run", "kind": "run"}', "'kind' stands in it twice"),
        (b'{"kind": 1e400}', "1e400 is no finite number"),
        (b'{"kind": NaN}', "NaN is no finite number"),
        (b"[]", "it holds a list"),
        (b'"run"', "it holds a str"),
        (b"{}", "'kind' is no str"),
        (b" " * (MOST_BYTES_OF_JSON + 1), "it has more than 16,777,216 bytes"),
        (b'{"kind": "run", "format_version": ' + b"9" * 5000 + b"}", "integer string conversion"),
        (b'{"kind": "run", "format_version": 4, "properties": [], "files": {}}', "'properties' is no dict"),
        (b'{"kind": "run", "format_version": true, "properties": {}, "files": {}}', "'format_version' is no int"),
    ],
)
def test_manifests_of_other_forms_are_errors_in_a_sentence(run: Path, content: bytes, message: str) -> None:
    (run / MANIFEST).write_bytes(content)
    with pytest.raises(StoreError, match=f"(?i)manifest.json .*{re.escape(message)}.*copy the directory again"):
        read_manifest(run, "run")


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("a.txt", {"size": 3.0, "sha256": DIGEST}),
        ("a.txt", {"size": -1, "sha256": DIGEST}),
        ("a.txt", {"size": True, "sha256": DIGEST}),
        ("a.txt", {"size": 3, "sha256": "0"}),
        ("a.txt", {"size": 3, "sha256": None}),
        ("a.txt", {"size": 3}),
        ("a.txt", [3, DIGEST]),
        ("../run/a.txt", {"size": 3, "sha256": DIGEST}),
        ("sub/../a.txt", {"size": 3, "sha256": DIGEST}),
        ("/etc/passwd", {"size": 3, "sha256": DIGEST}),
        ("./a.txt", {"size": 3, "sha256": DIGEST}),
        ("sub//b.txt", {"size": 3, "sha256": DIGEST}),
        ("sub\\b.txt", {"size": 3, "sha256": DIGEST}),
        ("a\0.txt", {"size": 3, "sha256": DIGEST}),
        (MANIFEST, {"size": 3, "sha256": DIGEST}),
        ("", {"size": 3, "sha256": DIGEST}),
    ],
)
def test_entries_of_other_forms_are_refused(run: Path, name: str, entry: object) -> None:
    damaged(run, lambda manifest: manifest["files"].update({name: entry}))
    for verify in (True, False):
        with pytest.raises(StoreError, match=r"manifest\.json (lists|is not a manifest)"):
            read_manifest(run, "run", verify=verify)


def test_manifests_inside_are_read_with_the_same_care(run: Path) -> None:
    (run / "index" / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(StoreError, match=r"index/manifest\.json cannot be read: it is nested too deeply"):
        read_manifest(run, "run")


def test_what_was_left_of_a_file_is_removed_when_it_is_written(tmp_path: Path) -> None:
    """But not what is new, held, or of another file."""
    for name in (".a[1].txt.0123.tmp", ".a[1].txt.4567.tmp", ".b.txt.0123.tmp", ".a1.txt.0123.tmp"):
        (tmp_path / name).write_text("half")
        if "4567" not in name:
            os.utime(tmp_path / name, (1, 1))
    with atomic_file(tmp_path / "a[1].txt") as temporary:
        temporary.write_text("whole")
        os.utime(temporary, (1, 1))
        with atomic_file(tmp_path / "a[1].txt") as other:
            other.write_text("other")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".a1.txt.0123.tmp", ".a[1].txt.4567.tmp", ".b.txt.0123.tmp", "a[1].txt"
    ]  # fmt: skip
    assert (tmp_path / "a[1].txt").read_text() == "whole"
