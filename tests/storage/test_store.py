"""Stored directories: whole or absent, verified, never over anything foreign."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xmc.errors import StoreError
from xmc.storage.directories import atomic_directory
from xmc.storage.files import atomic_file
from xmc.storage.manifests import LOG, MANIFEST, read_manifest


def write(path: Path, text: str) -> None:
    with atomic_directory(path, "run", labels=3) as temporary:
        (temporary / "a.txt").write_text(text)
        (temporary / "sub").mkdir()
        (temporary / "sub" / "b.txt").write_text(text * 2)


def test_written_directory_verifies(tmp_path: Path) -> None:
    write(tmp_path / "run", "one")
    manifest = read_manifest(tmp_path / "run", "run")
    assert manifest["properties"] == {"labels": 3}
    assert sorted(manifest["files"]) == ["a.txt", "sub/b.txt"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_replaces_a_directory_of_its_kind_and_carries_the_log_over(tmp_path: Path) -> None:
    write(tmp_path / "run", "one")
    (tmp_path / "run" / LOG).write_text("line\n")
    write(tmp_path / "run", "two")
    assert (tmp_path / "run" / "a.txt").read_text() == "two"
    assert (tmp_path / "run" / LOG).read_text() == "line\n"
    assert LOG not in read_manifest(tmp_path / "run", "run")["files"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_an_exception_leaves_the_old_directory(tmp_path: Path) -> None:
    write(tmp_path / "run", "one")
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "run", "run") as temporary:
        (temporary / "a.txt").write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "run" / "a.txt").read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


KILLED = """
import sys, time
from pathlib import Path
from xmc.storage.directories import atomic_directory
with atomic_directory(Path(sys.argv[1]), "run") as temporary:
    (temporary / "a.txt").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_sigkill_in_the_middle_leaves_the_old_directory_whole(tmp_path: Path) -> None:
    write(tmp_path / "run", "one")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    read_manifest(tmp_path / "run", "run")
    assert (tmp_path / "run" / "a.txt").read_text() == "one"


READER = """
import sys
from pathlib import Path
seen = ["one"]
while len(seen) < 120:  # changes of what is read; at most 300 s, as its test says
    text = Path(sys.argv[1], "a.txt").read_text()
    if text != seen[-1]:
        seen.append(text)
print(*sorted(set(seen)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged in one step on Linux only")
def test_a_reader_never_finds_the_directory_missing(tmp_path: Path) -> None:
    write(tmp_path / "run", "one")
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 300
    while reader.poll() is None and time.monotonic() < end:
        write(tmp_path / "run", "two")
        write(tmp_path / "run", "one")
    reader.kill()  # nothing, where it has ended
    assert reader.communicate() == ("one two\n", "")


def test_foreign_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(StoreError, match="not an xmc run"), atomic_directory(tmp_path / "thesis", "run"):
        pass
    assert (tmp_path / "thesis" / "chapter1.tex").exists()
    with pytest.raises(StoreError, match="is a file"), atomic_directory(tmp_path / "thesis" / "chapter1.tex", "run"):
        pass
    write(tmp_path / "run", "one")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"run cannot be written: .*Name another directory"):  # noqa: SIM117
        with atomic_directory(tmp_path / "file" / "run", "run"):
            pass
    with pytest.raises(StoreError, match="not an xmc index"), atomic_directory(tmp_path / "run", "index"):
        pass


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "a.txt").write_text("onE"), r"a\.txt does not match its SHA-256"),
        (lambda run: (run / "a.txt").write_text("on"), r"a\.txt has 2 bytes where the manifest says 3"),
        (lambda run: (run / "sub" / "b.txt").unlink(), r"b\.txt is missing"),
        (lambda run: (run / MANIFEST).write_text("{"), "not a manifest"),
        (lambda run: (run / MANIFEST).write_text("[]"), "not a manifest"),
        (lambda run: (run / MANIFEST).unlink(), "holds no manifest.json"),
        (lambda run: edit(run, format_version=99), "format version 99"),
        (lambda run: edit(run, kind="index"), "a saved index; a saved run is asked for"),
        (lambda run: edit(run, files={"../x": {"size": 1, "sha256": ""}}), "lies outside"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, message: str) -> None:
    run = tmp_path / "run"
    write(run, "one")
    damage(run)  # type: ignore[operator]
    with pytest.raises(StoreError, match=message):
        read_manifest(run, "run")


def edit(run: Path, **values: object) -> None:
    manifest = json.loads((run / MANIFEST).read_text())
    (run / MANIFEST).write_text(json.dumps({**manifest, **values}))


def test_missing_directory() -> None:
    with pytest.raises(StoreError, match="does not exist"):
        read_manifest("/nowhere/at/all", "run")


def test_atomic_file_keeps_the_old_one_on_failure(tmp_path: Path) -> None:
    file = tmp_path / "x" / "file.txt"
    with atomic_file(file) as temporary:
        temporary.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(file) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert file.read_text() == "old"
    assert [entry.name for entry in file.parent.iterdir()] == ["file.txt"]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    """But not what another process is writing, nor what is new, nor what belongs to another directory."""
    for name in (".run.0123.tmp", ".run.4567.tmp", ".run.new.tmp", ".other.0123.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("half")
        if "new" not in name:
            os.utime(tmp_path / name, (1, 1))
    code = (
        "import fcntl, os, sys, time; held = os.open(sys.argv[1], os.O_RDONLY)\n"
        "fcntl.flock(held, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / ".run.4567.tmp")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "held\n"
        with atomic_directory(tmp_path / "run", "run") as directory:
            (directory / "file").write_text("whole")
        writer.kill()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".other.0123.tmp", ".run.4567.tmp", ".run.new.tmp", "run"
    ]  # fmt: skip
