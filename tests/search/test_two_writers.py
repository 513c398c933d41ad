"""Two processes that load one run and save it: nothing of either is lost, or the second is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import environment
from worlds import colours

from xmc import Retriever
from xmc.errors import StoreError
from xmc.evaluation.calibrate import calibrate
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule
from xmc.search.run_metrics import RunMetrics
from xmc.storage.signatures import new_key, sign


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def remembered(retriever: Retriever, *texts: str) -> None:
    """Search with a memory of queries, each of the label that is its text in capitals."""
    ids = [retriever.labels.ids[retriever.labels.rows([text.upper()])] for text in texts]
    memory = QueryMemory.from_lists(retriever.embed_queries(list(texts)), ids, list(texts))
    retriever.use_memory(memory, RecallQueries(VotingRule(weight=5.0)))


def calibrated(retriever: Retriever) -> None:
    calibrate(retriever, colours(), "test")


def content(directory: Path) -> tuple[Any, ...]:
    """Labels by uid with what is said of them, their vectors, queries remembered, and what else a run holds."""
    retriever = Retriever.load(directory)
    labels = retriever.labels
    rows = {row["uid"]: (row["text"], row.get("tone")) for row in labels.table.to_pylist()}
    vectors = {uid: vector.tobytes() for uid, vector in zip(labels.uids.to_pylist(), labels.embeddings, strict=True)}
    memory = [] if retriever.memory is None else retriever.memory.texts.to_pylist()
    return rows, vectors, memory, retriever.calibration is not None, labels.index.design.name, retriever.config


CHANGES: dict[str, Callable[[Retriever], object]] = {
    "added": lambda retriever: retriever.add_labels(["mauve", "teal"], ["M", "T"]),
    "updated": lambda retriever: retriever.update_labels(["crimson"], ["RED"]),
    "removed": lambda retriever: retriever.remove_labels(["BLUE", "BROWN"]),
    "set": lambda retriever: retriever.set_columns({"uid": ["PINK"], "tone": ["soft"]}),
    "several": lambda retriever: retriever.change_labels(
        [{"uid": "O", "text": "ochre"}], [{"uid": "BLACK", "text": "jet"}], ["WHITE"]
    ),
    "calibrated": calibrated,
    "indexed": lambda retriever: retriever.reindex("int8"),
    "remembering": lambda retriever: remembered(retriever, "green", "red"),
    "measured": lambda retriever: setattr(retriever, "metrics", RunMetrics(validation={"P@1": 50.0})),
}
"""Changes that touch nothing of each other."""


OFTEN = [
    ("several", "added"), ("updated", "added"), ("removed", "several"), ("set", "indexed"), ("calibrated", "several"),
    ("several", "calibrated"), ("indexed", "several"), ("several", "indexed"), ("remembering", "several"),
    ("several", "remembering"), ("measured", "added"),
]  # fmt: skip
THERE = ("added", "several", "calibrated", "indexed", "remembering")
OTHERS = [(here, there) for here in CHANGES for there in THERE if here != there and (here, there) not in OFTEN]


@pytest.mark.parametrize(("here", "there"), [*OFTEN, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in OTHERS)])
def test_what_does_not_touch_goes_together(copied: Path, here: str, there: str) -> None:
    first, second = Retriever.load(copied), Retriever.load(copied)
    CHANGES[there](second)
    second.save(copied, overwrite=True)
    CHANGES[here](first)
    first.save(copied, overwrite=True)
    alone = Retriever.load(copied)
    assert repr(alone) == repr(first)
    assert alone.metrics == first.metrics
    np.testing.assert_array_equal(alone.predict(["red and blue"])[0], first.predict(["red and blue"])[0])
    np.testing.assert_array_equal(alone.labels.ids, first.labels.ids)
    _same_as_one_after_the_other(copied, first, (there, here))


def _same_as_one_after_the_other(copied: Path, merged: Retriever, names: tuple[str, ...]) -> None:
    """The run holds what it would where the same changes had been made by one process."""
    expected = Retriever.load(ORIGINAL[0])
    for name in names:
        CHANGES[name](expected)
    expected.save(copied.with_name("expected"))
    mine, other = content(copied), content(copied.with_name("expected"))
    assert mine[0] == other[0]
    assert mine[1].keys() == other[1].keys()
    for uid, vector in mine[1].items():
        np.testing.assert_allclose(
            np.frombuffer(vector, np.float32), np.frombuffer(other[1][uid], np.float32), atol=0.2
        )  # of new labels: they are scaled by the labels that there were
    assert mine[2:] == other[2:]


ORIGINAL: list[Path] = []


@pytest.fixture(autouse=True)
def original(run: Path) -> None:
    ORIGINAL[:] = [run]


@pytest.mark.parametrize(
    ("here", "there", "named"),
    [
        ("added", "added", "'M' is already there"),
        ("updated", "updated", "the label 'RED' was changed here and there"),
        ("updated", "column", "the label 'RED' was changed here and there"),
        ("column", "updated", "the label 'RED' was changed here and there"),
        ("removed", "removed", "the label 'BLUE' was changed here and removed there"),
        ("calibrated", "calibrated", "what was changed here and there is: calibration"),
        ("remembering", "remembering", "what was changed here and there is: stages"),
        ("indexed", "other index", "what was changed here and there is: configuration"),
        ("measured", "measured otherwise", "what was changed here and there is: metrics"),
        ("added", "model", "the model was changed there"),
        ("model", "added", "the model was changed here"),
    ],
)
def test_what_both_changed_is_refused(copied: Path, here: str, there: str, named: str) -> None:

    def trained(retriever: Retriever) -> None:
        with torch.no_grad():
            next(iter(retriever.model.parameters())).add_(0.5)

    changes = {
        **CHANGES,
        "column": lambda retriever: retriever.set_columns({"uid": ["RED"], "tone": ["loud"]}),
        "other index": lambda retriever: retriever.reindex("HNSW8"),
        "measured otherwise": lambda retriever: setattr(retriever, "metrics", RunMetrics(validation={"P@1": 51.0})),
        "model": trained,
    }
    first, second = Retriever.load(copied), Retriever.load(copied)
    changes[there](second)
    second.save(copied, overwrite=True)
    saved = content(copied)
    changes[here](first)
    with pytest.raises(StoreError, match=rf"do not go together: .*{named}.*Load it again .*discard=True"):
        first.save(copied, overwrite=True)
    assert content(copied) == saved
    first.save(copied.with_name("elsewhere"))
    first.save(copied, overwrite=True)  # it was saved elsewhere last, so that this is any other directory
    assert content(copied) == content(copied.with_name("elsewhere"))


def test_discarding_and_refusing_are_asked_for(copied: Path) -> None:
    first, second, third = (Retriever.load(copied) for _ in range(3))
    second.add_labels(["teal"])
    second.save(copied, overwrite=True)
    first.add_labels(["mauve"])
    with pytest.raises(StoreError, match="was written by another process since it was read"):
        first.save(copied, overwrite=True, unchanged=True)
    with pytest.raises(StoreError, match="already holds a run"):
        first.save(copied)
    first.save(copied, overwrite=True, discard=True)
    assert Retriever.load(copied).labels.rows(["teal", "mauve"]).tolist() == [-1, 12]
    third.save(copied, overwrite=True)  # which changed nothing, and learns of it
    assert third.labels.rows(["teal", "mauve"]).tolist() == [-1, 12]
    third.add_labels(["ecru"])
    third.save(copied, overwrite=True)
    assert Retriever.load(copied).labels.rows(["mauve", "ecru"]).tolist() == [12, 13]


def test_too_many_changes_are_not_kept(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmc.search.store.KEPT_AT_LEAST", 3)
    first, second = Retriever.load(copied), Retriever.load(copied)
    second.add_labels(["teal"])
    second.save(copied, overwrite=True)
    for _ in range(7):
        first.add_labels(["mauve"])
        first.remove_labels(["mauve"])
    first.add_labels(["ecru"])
    with pytest.raises(StoreError, match="more labels were changed here than are kept"):
        first.save(copied, overwrite=True)


ADDS = """
import sys
from xmc import Retriever
run, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    retriever = Retriever.load(run)
    retriever.add_labels([f"{name} {number}"])
    retriever.save(run, overwrite=True)
kept = Retriever.load(run)
for number in range(count, 2 * count):
    kept.add_labels([f"{name} {number}"])
    kept.save(run, overwrite=True)
"""


@pytest.mark.slow
def test_writers_that_add_labels_at_once_lose_none(copied: Path) -> None:
    """XMC_WRITERS processes add twice XMC_WRITES labels each, while another one calibrates the run."""
    writers, count = int(os.environ.get("XMC_WRITERS", "3")), int(os.environ.get("XMC_WRITES", "3"))
    retriever = Retriever.load(copied)  # which is held while the others write
    processes = [
        subprocess.Popen([sys.executable, "-c", ADDS, str(copied), name, str(count)], env=environment())
        for name in "abcdefghijklmnopqrstuvwxyz"[:writers]
    ]
    calibrated(retriever)
    while any(process.poll() is None for process in processes):
        retriever.save(copied, overwrite=True)
        calibrated(retriever)
    assert [process.returncode for process in processes] == [0] * writers
    retriever.save(copied, overwrite=True)
    after = Retriever.load(copied)
    expected = {f"{name} {number}" for name in "abcdefghijklmnopqrstuvwxyz"[:writers] for number in range(2 * count)}
    assert expected <= set(after.labels.uids.to_pylist())
    assert len(after) == 12 + len(expected)
    assert len(set(after.labels.ids.tolist())) == len(after)
    assert after.calibration is not None
    assert after.fits_calibration()
    assert sorted(entry.name for entry in copied.parent.iterdir()) == ["run"]


def test_who_trusts_keys_takes_over_nothing_that_none_of_them_signed(copied: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    public = new_key(key)
    sign(copied, key)
    first, second = Retriever.load(copied, trusted_keys=[public]), Retriever.load(copied)
    second.add_labels(["teal"], ["T"])
    second.save(copied, overwrite=True)
    first.add_labels(["mauve"], ["M"])
    with pytest.raises(StoreError, match="sign"):
        first.save(copied, overwrite=True)
    sign(copied, key)
    first.save(copied, overwrite=True)
    assert {"T", "M"} <= set(Retriever.load(copied).labels.uids.to_pylist())
