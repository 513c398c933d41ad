"""Labels cleaned by a conversion, label texts that stand twice, and counts of defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import fail, xmc
from layouts import lines

from xmc.data.cleaning import CleanedSource, LabelCleaning
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.images.ragged import RaggedImages
from xmc.data.readers import open_source
from xmc.data.validate import validate
from xmc.errors import ConfigError

ROWS = [
    "uid,text,labels,relevance",
    "1,a,'Sea,Ship','1,1'",
    "2,b,'sea,SEA,ship','0.5,2,1'",
    "3,c,Rare,1",
    "4,d,,",
    "5,e,sea,1",
]


def messy(folder: Path) -> Path:
    """Labels without a table, in upper and lower case."""
    folder.mkdir()
    lines(folder / "train.csv", [row.replace("'", '"') for row in ROWS])
    lines(folder / "test.csv", ["uid,text,labels", '6,f,"SHIP,rare"'])
    return folder


def labels_of(data: Dataset, split: str) -> list[dict[str, float]]:
    uids = data.labels.uids.to_pylist()
    return [
        {uids[label]: float(value) for label, value in zip(row.indices, row.data, strict=True)}
        for row in data.split(split).positives
    ]


def test_labels_that_become_equal_are_one(tmp_path: Path) -> None:
    done = convert(open_source(messy(tmp_path / "source")), tmp_path / "out", cleaning=LabelCleaning(lowercase=True))
    assert done.dataset.labels.uids.to_pylist() == done.dataset.labels.texts.to_pylist()
    assert sorted(done.dataset.labels.uids.to_pylist()) == ["rare", "sea", "ship"]
    assert labels_of(done.dataset, "train") == [
        {"sea": 1, "ship": 1},
        {"sea": 2, "ship": 1},
        {"rare": 1},
        {},
        {"sea": 1},
    ]
    assert labels_of(done.dataset, "test") == [{"ship": 1, "rare": 1}]
    assert done.warnings["label joined with another"] == 5
    assert done.dataset.properties["cleaned_labels"] == {"lowercase": True}
    assert done.dataset.properties["columns"]["labels"] == "labels"
    assert not done.dropped


def test_rare_labels_are_left_out_when_they_have_been_joined(tmp_path: Path) -> None:
    arguments = (messy(tmp_path / "source"), tmp_path / "out", "--lowercase", "--min-count", 2)
    done = xmc("data", "convert", *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 labels" in done.stdout
    assert "warning: 1 x label of fewer than 2 queries left out" in done.stdout
    data = Dataset.load(tmp_path / "out")
    assert labels_of(data, "train") == [{"sea": 1, "ship": 1}, {"sea": 2, "ship": 1}, {}, {}, {"sea": 1}]
    assert labels_of(data, "test") == [{"ship": 1}]
    assert next(iter(validate(open_source(tmp_path / "out")))).reason == "query without labels"
    plain = convert(open_source(tmp_path / "source"), tmp_path / "plain", cleaning=LabelCleaning(min_count=2)).dataset
    assert plain.labels.uids.to_pylist() == ["sea"]
    fail(xmc("data", "convert", *arguments[:2], "--min-count", 0), "min-count")


def labelled() -> Dataset:
    """A label table with uids of its own, and everything that is about a label."""
    return Dataset.from_lists(
        "labelled",
        [" Sea ", "Ship", "sea", "Rare"],
        {"train": (["a", "b", "c"], [[0, 1], [1, 2], [0]])},
        label_uids=["L0", "L1", "L2", "L3"],
        rejected={"train": [[3], [0], []]},
        filters={"train": np.array([[0, 3], [1, 1], [2, 2]])},
        judged={"train": [("0", "L1", "correct"), ("1", "L3", "wrong")]},
        images={"labels": RaggedImages.from_arrays([np.full((1, 2), row) for row in range(4)])},
    )


def test_labels_with_uids_of_their_own_keep_them(tmp_path: Path) -> None:
    labelled().save(tmp_path / "data")
    source = CleanedSource(open_source(tmp_path / "data"), LabelCleaning(True, True, 2))
    defects = [(defect.severity, defect.reason) for defect in validate(source)]
    assert defects == [("warning", "label of fewer than 2 queries left out")] * 2
    data = convert(source, tmp_path / "out").dataset
    assert data.labels.uids.to_pylist() == ["L0", "L1"]
    assert data.labels.texts.to_pylist() == ["sea", "ship"]
    assert labels_of(data, "train") == [{"L0": 1, "L1": 1}, {"L1": 1}, {"L0": 1}]
    assert [row.indices.tolist() for row in data.split("train").rejected] == [[], [0], []]
    assert data.filter("train").tolist() == [[1, 1]]
    judgements = data.judgements("train")
    assert judgements is not None
    assert judgements.correct.nnz == 1
    assert judgements.wrong.nnz == 0
    assert data.labels.images is not None
    assert data.labels.images.values[:, 0].tolist() == [0, 1]
    joined = convert(open_source(tmp_path / "data"), tmp_path / "both", cleaning=LabelCleaning(True, True))
    assert joined.dataset.labels.texts.to_pylist() == ["sea", "ship", "sea", "rare"]
    assert joined.warnings["label text that another label has"] == 1


def test_label_texts_that_stand_twice_are_warned_of(tmp_path: Path) -> None:
    lines(tmp_path / "labels.csv", ["uid,text", *(f"L{row},text {row % 9000}" for row in range(9002)), "E1,", "E2,"])
    lines(tmp_path / "train.csv", ["uid,text,labels", "1,a,L9001", "2,b,"])
    defects = [(defect.reason, defect.line) for defect in validate(open_source(tmp_path)) if "another" in defect.reason]
    assert defects == [("label text that another label has", 9002), ("label text that another label has", 9003)]
    done = xmc("data", "validate", tmp_path, "--summary")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"warning: 2 x empty text, first: {tmp_path}/labels.csv, line 9,004: the text of 'E1' is empty.",
        f"warning: 2 x label text that another label has, first: {tmp_path}/labels.csv, line 9,002: the text 'text 0' of the "
        f"label 'L9000' is that of an earlier label too.",
        f"warning: 1 x query without labels, first: {tmp_path}/train.csv, line 3: the query '2' has no labels.",
        f"{tmp_path}: 0 errors, 5 warnings",
    ]
    lines(tmp_path / "train.csv", ["uid,text,labels", "1,a,L0", "1,b,L1", "2,b,none", "3,c,none"])
    done = xmc("data", "validate", tmp_path, "--summary")
    assert done.returncode == 2
    assert "error: 2 x unknown label, first: " in done.stdout
    assert "error: 1 x duplicate uid, first: " in done.stdout
    assert "3 errors" in done.stdout


def test_counts_that_do_not_fit(tmp_path: Path) -> None:
    for count in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="min_count must be a whole number of at least 1"):
            LabelCleaning(min_count=count)  # type: ignore[arg-type]
    Dataset.from_lists("only", ["a"], {"test": (["x"], [[0]])}).save(tmp_path / "data")
    with pytest.raises(ConfigError, match="min_count counts the positives of the split train"):
        convert(open_source(tmp_path / "data"), tmp_path / "out", cleaning=LabelCleaning(min_count=2))
