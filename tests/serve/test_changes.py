"""Changes of a run that is served: none that was confirmed is lost or made twice, whoever dies, compacts, replaces the run."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.errors import ConflictError, InputError, StoreError
from xmc.search.label_edits import LabelEdits
from xmc.search.run_directory import RunDirectory
from xmc.serve import journal as journal_module
from xmc.serve.changes import LabelChanges, journal_of

TEXTS = ["turquoise", "red and blue", "pink", "crimson", "a mauve item"]


@pytest.fixture
def copied(remembering: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(remembering, tmp_path / "run"))


def opened(run: Path) -> LabelChanges:
    return LabelChanges(run, xmc.Retriever.load(run))


def edits(add: Any = (), update: Any = (), remove: Any = ()) -> LabelEdits:
    return LabelEdits.read(add, update, remove)


def content(changes: LabelChanges) -> tuple[Any, ...]:
    """Labels, what they are searched by, remembered queries, and answers."""
    retriever = changes.retriever
    memory = retriever.memory
    assert memory is not None
    uids, scores = retriever.predict(TEXTS, 5)
    return (
        retriever.labels.table.to_pylist(),
        retriever.embeddings.tobytes(),
        memory.texts.to_pylist(),
        [ids.tolist() for ids in memory.lists()],
        memory.held.embeddings.tobytes(),
        uids.tolist(),
        scores.tolist(),
        changes.version,
    )


def several(changes: LabelChanges) -> None:
    """Four changes of all kinds."""
    changes.apply(edits([{"uid": "T", "text": "turquoise", "price": 3}, {"uid": "M", "examples": ["a mauve item"]}]))
    changes.remember(["a turquoise thing", "mauve and red"], [["T"], ["M", "RED"]])
    changes.apply(
        edits(update=[{"uid": "RED", "text": "crimson"}, {"uid": "BLUE", "price": 1}], remove=["GREEN", "PINK"])
    )
    changes.apply(edits([{"uid": "P", "text": "pink"}], remove=["T"]))


def test_changes_survive_without_compaction(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = opened(copied)
    several(changes)
    assert changes.version == 4
    with caplog.at_level(logging.WARNING):
        again = opened(copied)  # the first one was killed
    assert "another run" not in caplog.text
    assert content(again) == content(changes)
    assert (again.replayed, changes.replayed) == (4, 0)
    assert changes.apply(edits(remove=["P"]))[0] == 5
    assert again.catch_up() == 5
    assert again.apply(edits([{"text": "ochre"}]))[0] == 6
    assert content(opened(copied)) == content(again)
    assert changes.version == 5
    assert changes.catch_up() == 6


def test_versions_of_answers(copied: Path) -> None:
    changes, other = opened(copied), opened(copied)
    before = changes.retriever.answer(TEXTS, 3)
    several(other)
    changes.catch_up()
    after = changes.retriever.answer(TEXTS, 3)
    assert (changes.version_of(before.version), changes.version_of(after.version)) == (0, 4)


def test_refused_changes_leave_nothing(copied: Path) -> None:
    changes = opened(copied)
    several(changes)
    before, size = content(changes), journal_of(copied).stat().st_size
    with pytest.raises(ConflictError, match="'M' is already there"):
        changes.apply(edits([{"uid": "N", "text": "n"}, {"uid": "M", "text": "m"}]))
    with pytest.raises(InputError, match="no label 'NOBODY'"):
        changes.remember(["x"], [["NOBODY"]])
    with pytest.raises(InputError, match="values that JSON has"):
        changes.apply(edits([{"uid": "N", "text": "n", "price": float("nan")}]))
    assert content(changes) == before
    assert journal_of(copied).stat().st_size == size


def test_compaction_writes_the_run_and_keeps_numbers(copied: Path) -> None:
    changes, other = opened(copied), opened(copied)
    assert not changes.compact()
    several(changes)
    assert changes.compact()
    assert not changes.compact()
    written = RunDirectory(copied).fingerprint
    assert other.holds(written)
    assert other.version == 4
    assert not other.compact()
    again = opened(copied)
    assert again.replayed == 0
    assert content(again) == content(changes) == content(other)
    other.apply(edits(remove=["P"]))
    changes.catch_up()
    assert changes.compact()
    assert changes.apply(edits([{"text": "ochre"}]))[0] == 6
    assert not other.holds("another run")
    assert other.holds(RunDirectory(copied).fingerprint)
    assert opened(copied).replayed == 1
    assert content(opened(copied)) == content(changes)
    assert xmc.Retriever.load(copied).labels.rows(["P"]).tolist() == [-1]
    assert len(journal_of(copied).read_bytes().splitlines()) == 3  # the header, the changes 5 and 6


def test_a_kill_between_compaction_and_cut(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = opened(copied)
    several(changes)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(journal_module.Writer, "cut", killed)
        changes.compact()
    again = opened(copied)
    assert again.replayed == 0
    assert content(again) == content(changes)
    assert again.apply(edits(remove=["P"]))[0] == 5
    assert content(opened(copied)) == content(again)


def test_changes_go_on_while_the_run_is_written(copied: Path) -> None:
    changes = opened(copied)
    several(changes)
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            changes.apply(edits([{"text": f"ochre {number}"}], remove=[f"ochre {number - 1}"] if number else []))
            changes.remember([f"ochre thing {number}"], [[f"ochre {number}"]])
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(3):
        changes.compact()
    stop.set()
    thread.join()
    assert content(opened(copied)) == content(changes)


def test_the_command_line_changes_a_run_with_a_journal(copied: Path) -> None:
    """What `xmc labels add RUN` does: the run is read without the journal, changed and written."""
    changes = opened(copied)
    several(changes)
    changes.compact()
    changes.apply(edits([{"uid": "O", "text": "ochre"}, {"uid": "V", "text": "violet"}], remove=["BLACK"]))
    other = xmc.Retriever.load(copied)
    other.add_labels(["ecru", "other ochre"], ["E", "O"])
    other.remove_labels(["M"])
    changes.compact()
    with pytest.raises(StoreError, match="was written by another process since it was read"):
        other.save(copied, overwrite=True, unchanged=True)
    with pytest.raises(StoreError, match=r"do not go together: .* 'O'"):
        other.save(copied, overwrite=True)
    other.save(copied, overwrite=True, discard=True)  # the changes that it lacks are still in the journal
    changes.apply(edits(remove=["V"]))
    assert not changes.compact()  # the run is another one: it stays as it is
    assert not changes.holds(RunDirectory(copied).fingerprint)
    again = opened(copied)
    assert again.replayed == 2
    assert again.version == 6
    assert again.retriever.texts(["E", "O"]) == ["ecru", "ochre"]
    assert again.retriever.labels.rows(["V", "M", "BLACK"]).tolist() == [-1, -1, -1]
    assert content(opened(copied)) == content(again)
    assert again.compact()
    assert content(opened(copied)) == content(again)


def test_a_run_in_place_of_another(copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another model with other labels, without memory: changes are made as far as they make sense, by its own vectors."""
    changes = opened(copied)
    several(changes)
    data = colours(
        ("turquoise", "red", "green", "blue", "black", "white", "brown", "grey", "rose", "mauve", "ink", "tan")
    )
    xmc.train(data, tiny_config(epochs=2, seed=1), tmp_path / "other")
    shutil.rmtree(copied)
    (tmp_path / "other").rename(copied)
    with caplog.at_level(logging.WARNING):
        again = opened(copied)
    assert again.replayed == again.version == 4
    assert "is another run than the changes" in caplog.text
    assert "the run has no memory for 2 queries" in caplog.text
    assert "there is no label 'PINK' any more" in caplog.text
    retriever = again.retriever
    assert retriever.texts(["RED", "M", "P"]) == ["crimson", "", "pink"]
    assert retriever.labels.rows(["GREEN", "T", "BLUE"]).tolist()[:2] == [-1, -1]
    wanted = retriever.model.embed_labels(["pink"])[0]
    made = retriever.labels.vectors_of(["P"])[0]
    np.testing.assert_allclose(made / np.linalg.norm(made), wanted / np.linalg.norm(wanted), atol=1e-6)
    assert again.compact()
    assert opened(copied).replayed == 0


def test_remembered_queries_in_a_replaced_run(
    copied: Path, remembering: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = opened(copied)
    changes.remember(["gone", "kept", "nothing"], [["GREEN"], ["RED", "GREEN"], []])
    other = xmc.Retriever.load(remembering)
    other.remove_labels(["GREEN"])
    other.save(copied, overwrite=True)
    with caplog.at_level(logging.WARNING):
        memory = opened(copied).retriever.memory
    assert memory is not None
    assert memory.texts.to_pylist()[-2:] == ["kept", "nothing"]
    assert [len(ids) for ids in memory.lists()[-2:]] == [1, 0]
    assert "there is no label 'GREEN' any more" in caplog.text


def test_journals_that_do_not_fit(copied: Path, tmp_path: Path) -> None:
    changes = opened(copied)
    several(changes)
    early = journal_of(copied).read_bytes()
    changes.apply(edits(remove=["P"]))
    changes.compact()
    journal_of(copied).write_bytes(early)  # an older copy was put back
    again = opened(copied)
    assert again.version == 5
    assert again.apply(edits([{"text": "ochre"}]))[0] == 6
    assert content(opened(copied)) == content(again)
    journal_of(copied).unlink()
    assert opened(copied).version == 5  # as in the run
    lost = opened(copied)
    assert lost.apply(edits([{"text": "ochre"}]))[0] == 6
    journal_of(copied).unlink()  # while it serves
    assert lost.apply(edits([{"text": "ecru"}]))[0] == 7
    assert opened(copied).version == 7
    assert opened(copied).retriever.labels.rows(["ochre"]).tolist() == [-1]
    assert lost.compact()
    assert content(opened(copied)) == content(lost)
    lines = journal_of(copied).read_bytes()
    journal_of(copied).write_bytes(lines.replace(b'"ecru"', b'"ECRU"'))
    with pytest.raises(StoreError, match=r"Line 2 of .*, the change 7, is damaged"):
        opened(copied)
    with pytest.raises(StoreError, match="was not loaded from a run"):
        LabelChanges(copied, xmc.Retriever.load(copied).exact())


def test_a_worker_that_slept_through_two_compactions(copied: Path) -> None:
    changes, slept = opened(copied), opened(copied)
    several(changes)
    slept.catch_up()
    for text in ("one", "two", "three"):
        changes.apply(edits([{"text": text}]))
        changes.compact()
    changes.apply(edits([{"text": "four"}]))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"The changes from 6 to 6 are not in .* any more, but in the run"):
            slept.catch_up()
    assert not slept.holds(RunDirectory(copied).fingerprint)
    assert content(opened(copied)) == content(changes)
