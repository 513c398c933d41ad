"""A data set is written whole or not at all, and never in place of anything else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import fail
from commands import xmc as command
from layouts import lines

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.directory import data_set_directory
from xmc.data.readers import open_source
from xmc.errors import StoreError


def texts(directory: Path) -> list[str]:
    data = Dataset.load(directory)
    assert data.split("train").positives.shape == (data.properties["splits"]["train"], data.properties["labels"])
    return list(data.split("train").texts.to_pylist())


def content(directory: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in directory.iterdir()}


def source(file: Path, *rows: str) -> Path:
    lines(file, ["uid,text,labels", *rows])
    return file


OLD = ("1,the old sea,sea", "2,the old land,land")
NEW = ("1,a new sea,sea", "2,a new land,land", "3,new air,air")


def test_a_bad_source_leaves_the_data_set_that_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("data", "convert", source(tmp_path / "old.csv", *OLD), out).returncode == 0
    before = content(out)
    source(tmp_path / "twice.csv", *OLD, *OLD)
    lines(tmp_path / "no-labels.csv", ["uid,text", "1,x"])
    for name in ("twice.csv", "no-labels.csv"):
        file = tmp_path / name
        fail(command("data", "convert", file, out, "--overwrite"), name)
        assert content(out) == before
    fail(command("data", "convert", tmp_path / "absent.csv", out, "--overwrite"), "does not exist")
    assert content(out) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["no-labels.csv", "old.csv", "out", "twice.csv"]


def test_a_data_set_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    out, new = tmp_path / "out", source(tmp_path / "new.csv", *NEW)
    convert(open_source(source(tmp_path / "old.csv", *OLD)), out)
    done = command("data", "convert", new, out)
    fail(done, "already holds the data set 'old'")
    fail(done, "--overwrite")
    assert texts(out) == ["the old sea", "the old land"]
    assert command("data", "convert", new, out, "--overwrite").returncode == 0
    assert texts(out) == ["a new sea", "a new land", "new air"]
    assert Dataset.load(out).labels.uids.to_pylist() == ["air", "land", "sea"]
    with pytest.raises(StoreError, match="already holds the data set 'new'"):
        Dataset.load(out).save(out)
    again = Dataset.load(out)
    again.save(out, overwrite=True)  # onto the files that it is read from
    assert texts(out) == ["a new sea", "a new land", "new air"]
    assert Dataset.load(out).fingerprint == again.fingerprint
    convert(open_source(out), out, overwrite=True)
    assert texts(out) == ["a new sea", "a new land", "new air"]


def test_what_is_not_a_data_set_is_never_replaced(tmp_path: Path) -> None:
    old = open_source(source(tmp_path / "old.csv", *OLD))
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"thesis exists and is not a data set of xmc \(it holds chapter.tex\)"):
            convert(old, thesis, overwrite=overwrite)
        with pytest.raises(StoreError, match=r"old\.csv is a file"):
            convert(old, tmp_path / "old.csv", overwrite=overwrite)
        with pytest.raises(StoreError, match="comes with xmc"):
            convert(old, Dataset.load("wordnet-8k").directory or "", overwrite=overwrite)
    (thesis / "dataset.json").write_text(json.dumps({"pages": 300}))
    with pytest.raises(StoreError, match="is not a data set of xmc"):
        convert(old, thesis, overwrite=True)
    assert sorted(content(thesis)) == ["chapter.tex", "dataset.json"]
    convert(old, tmp_path / "out")
    (tmp_path / "out" / "judged-test.parquet").write_bytes(b"days of work")
    with pytest.raises(StoreError, match=r"holds judged-test.parquet, which would be lost .* move it away"):
        convert(old, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "judged-test.parquet").read_bytes() == b"days of work"
    assert (tmp_path / "old.csv").exists()
    assert len(Dataset.load("wordnet-8k").labels) == 7488


def test_what_came_while_it_was_written_stays(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a data set of xmc"), data_set_directory(tmp_path / "out") as temporary:
        Dataset.from_lists("new", ["a"], {"train": (["x"], [[0]])}).save(temporary / "inner")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
    assert content(tmp_path / "out") == {"thesis.tex": b"years of work"}


def test_links_are_followed_and_an_empty_folder_is_taken(tmp_path: Path) -> None:
    old, new = (open_source(source(tmp_path / f"{name}.csv", *rows)) for name, rows in (("old", OLD), ("new", NEW)))
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    convert(old, tmp_path / "link")
    convert(new, tmp_path / "link", overwrite=True)
    assert texts(tmp_path / "disk") == ["a new sea", "a new land", "new air"]
    assert (tmp_path / "link").is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["disk", "link", "new.csv", "old.csv"]


def test_a_full_disk_leaves_the_data_set_that_is_there(tmp_path: Path) -> None:
    convert(open_source(source(tmp_path / "old.csv", *OLD)), tmp_path / "out")
    before = content(tmp_path / "out")
    big = source(tmp_path / "big.csv", *(f"{row},{hash(str(row))} {hash(str(row) * 2)},{row}" for row in range(3000)))
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000));"
        "from xmc.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "data", "convert", str(big), str(tmp_path / "out"), "--overwrite"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert content(tmp_path / "out") == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["big.csv", "old.csv", "out"]


KILLED = """
import os, signal, sys
event, name = sys.argv[1:3]
def die(happening, arguments):
    paths = [str(argument) for argument in arguments if isinstance(argument, (str, os.PathLike))]
    if happening == event and any(".out." in path and path.endswith(name) for path in paths):
        print("there", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
from xmc.data.convert import convert
from xmc.data.readers import open_source
source = open_source(sys.argv[3])
sys.addaudithook(die)
convert(source, sys.argv[4], overwrite=True)
"""
POINTS = {
    "the temporary folder is made": ("os.mkdir", ".tmp", "old"),
    "the properties get their name": ("os.rename", "dataset.json", "old"),
    "labels are put on the disk": ("open", "labels.parquet", "old"),
    "queries are put on the disk": ("open", "queries-train.parquet", "old"),
    "the old one is removed": ("shutil.rmtree", ".tmp", "new"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged in one step on Linux only")
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_or_the_new_one(point: str, tmp_path: Path) -> None:
    event, name, expected = POINTS[point]
    convert(open_source(source(tmp_path / "old.csv", *OLD)), tmp_path / "out")
    new = source(tmp_path / "new.csv", *NEW)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, event, name, new, tmp_path / "out"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "there\n"), done.stderr
    assert [text for text in texts(tmp_path / "out") if expected in text]
    assert len(texts(tmp_path / "out")) == {"old": 2, "new": 3}[expected]
    convert(open_source(new), tmp_path / "out", overwrite=True)
    assert texts(tmp_path / "out") == ["a new sea", "a new land", "new air"]
