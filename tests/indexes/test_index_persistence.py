"""Saved indexes: killed at any moment, read while they are replaced, damaged, or of something else than was asked for."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import changing_index
import numpy as np
import pytest
from changing_index import DIMENSION, SOURCE, changes_made, named, numbers_of, one_change, start, state, vectors
from processes import environment, stopped_while

from xmc.errors import StoreError
from xmc.indexes.factory import build_index, load_index
from xmc.indexes.label_index import LabelIndex
from xmc.storage.arrow import write_embeddings
from xmc.storage.fingerprints import sha256_file
from xmc.storage.manifests import MANIFEST

CASES = (("exact", False), ("IVF16,PQ8x4fs,Refine(SQ8)", True), ("HNSW8", False))
"""Designs, and whether ids are strings."""
KILLS = 20
"""In all, over the designs."""
QUERIES = vectors(16, [5])


class Programs:
    """Starts the programs of changing_index, each in a process of its own that can be killed."""

    def __init__(self) -> None:
        command = [sys.executable, changing_index.__file__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        self._running: set[int] = set()

    def start(self, name: str, *arguments: object) -> int:
        """The pid of a program that runs with these arguments."""
        pid = self._ask(name, *arguments)
        self._running.add(pid)
        return pid

    def end(self, pid: int) -> int:
        """Its exit code, once it has ended: 0, or minus the signal that ended it."""
        self._running.discard(pid)
        return self._ask("end", pid)

    def kill(self, pid: int) -> int:
        """Kill it; its exit code."""
        os.kill(pid, signal.SIGKILL)
        return self.end(pid)

    def close(self) -> None:
        """Kill what still runs."""
        for pid in tuple(self._running):
            self.kill(pid)
        self.process.kill()

    def _ask(self, *words: object) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    one = Programs()
    yield one
    one.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By design, a folder with a saved index, which goes on from trial to trial."""
    found = {design: tmp_path_factory.mktemp("folder") for design, _ in CASES}
    for design, names in CASES:
        start(design, names, found[design] / "index")
    return found


def seen(log: Path) -> list[str]:
    """What a reader has seen, a line a load: a line under way is left out."""
    return log.read_text().split("\n")[:-1] if log.exists() else []


def logged(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else [0]


def leftovers(folder: Path) -> set[Path]:
    """What saves that are under way, or were killed, have written."""
    return set(folder.glob(".index.*.tmp"))


def stop_while_it_saves(pid: int, folder: Path, others: set[Path]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and not stopped_while(pid, lambda: leftovers(folder) - others):
        time.sleep(0.001)


def require_state(index: LabelIndex, changes: int, names: bool, exact: bool) -> None:
    """The index holds what it does after so many changes, and finds that."""
    numbers, embeddings = state(changes)
    assert index.ids.tolist() == named(numbers, names)
    np.testing.assert_array_equal(index.embeddings, embeddings)
    found, scores = index.search(QUERIES, 10, rescore=0 if exact else 4)
    place = {number: row for row, number in enumerate(numbers.tolist())}
    rows = np.array([place[number] for number in numbers_of(found.ravel())]).reshape(found.shape)
    assert all(len(set(row)) == 10 for row in rows.tolist())
    truth = QUERIES @ embeddings.T
    best = -np.sort(-truth, axis=1)[:, :10]
    np.testing.assert_allclose(scores, np.take_along_axis(truth, rows, 1), rtol=1e-5, atol=1e-5)
    recall = (scores >= best[:, -1:] - 1e-5).mean()
    assert recall >= (1 if exact else 0.85)


@pytest.mark.slow
@pytest.mark.parametrize(("design", "names"), CASES)
def test_killed_at_random_while_it_changes(
    design: str, names: bool, programs: Programs, folders: dict[str, Path]
) -> None:
    """After a kill the directory is that of the last save that returned, or of the one that was under way.

    Every second is killed during a save, the others at a random moment.
    """
    folder, chance, torn = folders[design], random.Random(design), 0
    log = folder / "log"
    for kill in range(-(-KILLS // len(CASES))):
        before, others = logged(log), leftovers(folder)
        pid = programs.start("keep_changing", folder / "index", log)
        end = time.monotonic() + 60
        while len(logged(log)) < len(before) + 1 and time.monotonic() < end:
            time.sleep(0.001)
        if kill % 2:
            stop_while_it_saves(pid, folder, others)
        else:
            time.sleep(chance.uniform(0, 0.2))
        assert programs.kill(pid) == -signal.SIGKILL
        assert len(logged(log)) > len(before)
        torn += len(leftovers(folder) - others)
        index = load_index(folder / "index", SOURCE)
        assert changes_made(index) - logged(log)[-1] in (0, 1)
        require_state(index, changes_made(index), names, design == "exact")
    assert torn  # some were killed while they saved


@pytest.mark.parametrize(("design", "names"), CASES)
def test_leftovers_of_killed_saves_do_not_hinder(design: str, names: bool, folders: dict[str, Path]) -> None:
    folder = folders[design]
    index = load_index(folder / "index", SOURCE)
    changes = one_change(index)
    index.save(folder / "index", SOURCE)
    index.save(folder / "elsewhere", SOURCE)
    for place in ("index", "elsewhere"):
        require_state(load_index(folder / place), changes, names, design == "exact")


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged in one step on Linux only")
@pytest.mark.parametrize("design", ["exact", "HNSW8"])
def test_loaded_while_it_is_replaced(design: str, programs: Programs, tmp_path: Path) -> None:
    """Two processes that load see one content or the other, never parts of both, and no error."""
    directory, logs, both = tmp_path / "index", [tmp_path / "one", tmp_path / "other"], {"content 0", "content 1"}
    changing_index.two_contents(design)[0].save(directory)
    writer = programs.start("keep_replacing", design, directory)
    readers = [programs.start("keep_loading", design, directory, log) for log in logs]
    end = time.monotonic() + 300  # only where a process is kept from running: it takes a second or two
    while time.monotonic() < end and not all(len(seen(log)) > 20 and set(seen(log)) >= both for log in logs):
        time.sleep(0.1)
    (tmp_path / "stop").touch()
    assert [programs.end(reader) for reader in readers] == [0, 0]
    assert programs.kill(writer) == -signal.SIGKILL
    for log in logs:
        assert set(seen(log)) == both


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    start("exact", False, tmp_path / "index")
    return tmp_path / "index"


def test_another_source_is_refused(saved: Path) -> None:
    assert len(load_index(saved)) == len(load_index(saved, SOURCE)) == changing_index.FIRST
    with pytest.raises(
        StoreError, match=r"built from changes \(2000 labels of dimension 16\), and sha-256 of others is"
    ):
        load_index(saved, "sha-256 of others")


@pytest.mark.parametrize(("rows", "dimension"), [(2000, 17), (1999, 16)])
def test_embeddings_that_do_not_fit_are_refused(rows: int, dimension: int, saved: Path) -> None:
    """Also where the manifest vouches for them."""
    file = saved / "embeddings.arrow"
    write_embeddings([np.zeros((rows, dimension), np.float32)], dimension, file)

    def vouch(manifest: Any) -> None:
        manifest["files"][file.name] = {"size": file.stat().st_size, "sha256": sha256_file(file)}

    edit(saved, vouch)
    match = rf"has 2000 ids, but {rows} embeddings of dimension {dimension} where the dimension is 16"
    with pytest.raises(StoreError, match=match):
        load_index(saved)


def edit(saved: Path, change: Callable[[Any], object]) -> None:
    manifest = json.loads((saved / MANIFEST).read_text())
    change(manifest)
    (saved / MANIFEST).write_text(json.dumps(manifest))


DAMAGES: dict[str, Callable[[Any], object]] = {
    "no properties": lambda manifest: manifest.pop("properties"),
    "properties in a list": lambda manifest: manifest.update(properties=[]),
    "no dimension": lambda manifest: manifest["properties"].pop("dimension"),
    "no covered": lambda manifest: manifest["properties"].pop("covered"),
    "no measured": lambda manifest: manifest["properties"].pop("measured"),
    "a word for the dimension": lambda manifest: manifest["properties"].update(dimension="many"),
    "another dimension": lambda manifest: manifest["properties"].update(dimension=17),
    "another kind of index": lambda manifest: manifest["properties"].update(index="other"),
    "another size": lambda manifest: manifest["files"]["ids.arrow"].update(size=1),
    "another checksum": lambda manifest: manifest["files"]["ids.arrow"].update(sha256="0"),
    "files in a list": lambda manifest: manifest.update(files=[]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_refused(damage: str, saved: Path) -> None:
    edit(saved, DAMAGES[damage])
    with pytest.raises(StoreError, match=re.escape(str(saved))):
        load_index(saved)


@pytest.mark.parametrize("part", ["embeddings.arrow", "ids.arrow", "index.faiss"])
def test_files_that_are_truncated_or_missing_are_named(part: str, tmp_path: Path) -> None:
    start("HNSW8", True, tmp_path / "index")
    file = tmp_path / "index" / part
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(StoreError, match=rf"{part} has \d+ bytes where the manifest says \d+"):
        load_index(tmp_path / "index")
    file.unlink()
    with pytest.raises(StoreError, match=rf"{part} is missing"):
        load_index(tmp_path / "index")
    (tmp_path / "index" / MANIFEST).write_text('{"kind": "ind')
    with pytest.raises(StoreError, match="not a manifest"):
        load_index(tmp_path / "index")


def test_an_exception_while_saving_leaves_the_old_index(saved: Path) -> None:
    index = load_index(saved)
    one_change(index)
    held, ids = index.snapshot().held, index.snapshot().column.values
    broken = replace(held, measured={"by": object()})  # JSON cannot hold it, which shows once other files are written
    with pytest.raises(TypeError):
        LabelIndex.from_version(broken, ids).save(saved, SOURCE)
    require_state(load_index(saved, SOURCE), 0, names=False, exact=True)
    assert [entry.name for entry in saved.parent.iterdir()] == ["index"]
    index.save(saved, SOURCE)
    require_state(load_index(saved, SOURCE), 1, names=False, exact=True)


@pytest.mark.parametrize(("design", "names"), CASES)
def test_a_full_disk_while_saving_leaves_the_old_index(
    design: str, names: bool, programs: Programs, tmp_path: Path
) -> None:
    start(design, names, tmp_path / "index")
    assert programs.end(programs.start("change_with_full_disk", tmp_path / "index", tmp_path / "log")) == 0
    assert "File too large" in (tmp_path / "log").read_text()
    require_state(load_index(tmp_path / "index", SOURCE), 0, names, design == "exact")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index", "log"]


def test_an_empty_index_is_saved_and_loaded(tmp_path: Path) -> None:
    for design, _ in CASES:
        build_index(design, DIMENSION).save(tmp_path / "index", SOURCE)
        index = load_index(tmp_path / "index", SOURCE)
        assert len(index) == 0
        assert index.search(QUERIES, 3)[0].shape == (16, 0)
        index.add(vectors(30, [3]), range(30))
        index.save(tmp_path / "index", SOURCE)
        assert load_index(tmp_path / "index").ids.tolist() == list(range(30))
