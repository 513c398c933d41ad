"""The journal: what is appended is read by all, torn ends are cut off, damage is named, and cutting loses nobody a change."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from xmc.errors import InputError, StoreError
from xmc.serve.journal import Journal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.journal"


def append(journal: Journal, *values: object, after: int = 0) -> None:
    for value in values:
        with journal.writing(after) as writer:
            journal.follow()
            writer.append({"value": value})


def read(journal: Journal) -> list[tuple[int, object]]:
    journal.follow()
    entries = [(entry.number, entry.content["value"]) for entry in journal.pending]
    journal.pending.clear()
    return entries


def test_what_one_appends_others_read(file: Path) -> None:
    writer, reader, idle = Journal(file), Journal(file), Journal(file)
    assert read(reader) == []
    assert reader.unchanged()
    append(writer, "a", {"é": [1.5, None]}, after=7)
    assert writer.pending == type(writer.pending)()
    assert not reader.unchanged()
    assert read(reader) == [(8, "a"), (9, {"é": [1.5, None]})]
    assert reader.unchanged()
    append(reader, "b")
    append(writer, "c")
    assert read(reader) == [(11, "c")]
    assert read(idle) == [(8, "a"), (9, {"é": [1.5, None]}), (10, "b"), (11, "c")]
    with pytest.raises(InputError, match="values that JSON has"):
        append(writer, float("nan"))
    assert idle.unchanged()


def test_a_torn_end_is_cut_off(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(Journal(file), "a", "b")
    whole = file.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for torn in [*(whole[:end] for end in range(start + 1, len(whole), 7)), whole[:-9] + bytes(8) + b"\n"]:
        file.write_bytes(torn)
        reader, writer = Journal(file), Journal(file)
        assert read(reader) == [(1, "a")]
        with caplog.at_level(logging.WARNING):
            append(writer, "another b")
        assert read(reader) == [(2, "another b")]
        assert read(Journal(file)) == [(1, "a"), (2, "another b")]
        assert f"ends with {len(torn) - start} bytes of a change that was not written whole" in caplog.text
    file.write_bytes(whole)
    assert read(Journal(file)) == [(1, "a"), (2, "b")]


def test_damage_is_named(file: Path) -> None:
    append(Journal(file), "a", "b", "c")
    lines = file.read_bytes().splitlines(keepends=True)
    broken = [
        [*lines[:2], lines[2].replace(b'"b"', b'"B"'), *lines[3:]],
        [*lines[:2], b"\n", lines[3]],
        [*lines[:2], lines[3]],
        [*lines[:2], b'{"number": 2}\n', *lines[3:]],
    ]
    for content in broken:
        file.write_bytes(b"".join(content))
        journal = Journal(file)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"Line 3 of .*run.journal, the change 2, is damaged .*head -n 2 "):
                journal.follow()
        assert [entry.number for entry in journal.pending] == [1]
    assert os.system(f"cd {file.parent} && head -n 2 {file} > kept && mv kept {file}") == 0
    assert read(Journal(file)) == [(1, "a")]
    for head in (b"", b"{}\n", b"nonsense\n"):
        file.write_bytes(head + b"".join(lines[1:]))
        with pytest.raises(StoreError, match="does not begin as a journal of changes"):
            Journal(file).follow()
    file.write_bytes(lines[0].replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(StoreError, match="format version 2; this xmc reads version 1"):
        Journal(file).follow()


def test_cutting_loses_nobody_a_change(file: Path) -> None:
    """Who has read part of the file reads the rest of the old one; changes since the cut before stay."""
    writer, slow = Journal(file), Journal(file)
    append(writer, "a", "b")
    assert read(slow) == [(1, "a"), (2, "b")]
    append(writer, "c", "d")
    for compacted, values, kept in ((3, "e", "abcde"), (5, "f", "def"), (6, "g", "fg")):
        with writer.writing() as writing:
            writer.follow()
            writing.cut(compacted, f"run {compacted}")
        append(writer, values)
        assert [value for _, value in read(Journal(file))] == list(kept)
    assert read(slow) == [(3, "c"), (4, "d"), (6, "f"), (7, "g")]  # three cuts at once: `e` is in the run
    assert writer.header is not None
    assert (writer.header.after, writer.header.compacted, writer.header.run) == (5, 6, "run 6")
    with writer.writing() as writing:
        writing.renew(20)
    append(writer, "z")
    assert read(Journal(file)) == [(21, "z")]


def test_many_write_and_all_read_the_same(file: Path) -> None:
    def work(name: int) -> None:
        journal = Journal(file)
        for number in range(12):
            append(journal, f"{name}-{number}")
            if number == 5 and name < 2:  # who sleeps through three cuts would miss changes, and notice
                with journal.writing() as writer:
                    journal.follow()
                    writer.cut(journal.last, "run")

    first = Journal(file)
    append(first, "first")
    seen = read(Journal(file))
    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen += read(first)
    for thread in threads:
        thread.join()
    seen += read(first)
    assert [number for number, _ in seen] == list(range(1, 50))
    assert len({value for _, value in seen}) == 49


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "nowhere" / "run.journal")
    with pytest.raises(StoreError, match="cannot be written, so that no change can be kept"):
        append(journal, "a")
