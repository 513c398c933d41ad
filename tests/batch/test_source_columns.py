"""Names of columns in a data set's source are kept with the data set and the run, so that jobs need not be told them again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import fail, fail_each, xmc
from worlds import COLOURS, tiny_config

from xmc.batch import Columns, JobOptions, embed_files, predict_files
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import TabularColumns, open_source
from xmc.errors import DataError
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

ROWS = [(f"k{row}", f"item {row} {COLOURS[row % 12]}", COLOURS[row % 12].upper()) for row in range(120)]
NAMED = {
    "uid": "key", "text": "body", "labels": "tags", "separator": "|", "delimiter": ";",
    "label_uid": "uid", "label_text": "text",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV with names of its own, the data set converted from it, and a run trained on that."""
    folder = tmp_path_factory.mktemp("columns")
    (folder / "own.csv").write_text("key;body;tags\n" + "".join(f"{';'.join(row)}\n" for row in ROWS))
    columns = TabularColumns("key", "body", "tags", separator="|", delimiter=";")
    data = convert(open_source(folder / "own.csv", columns=columns), folder / "data").dataset
    train(data, tiny_config(epochs=2), folder / "run")
    return folder


def predicted_uids(folder: Path) -> list[str]:
    uids: list[str] = pq.read_table(folder)["uid"].to_pylist()
    return uids


def test_a_data_set_says_what_its_source_called_its_columns(world: Path, tmp_path: Path) -> None:
    assert json.loads((world / "data" / "dataset.json").read_text())["columns"] == NAMED
    again = convert(open_source(world / "data"), tmp_path / "again").dataset
    assert again.source_columns == NAMED
    again.save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").source_columns == NAMED
    assert Dataset.load("wordnet-8k").source_columns == {}
    assert json.loads((world / "run" / "metrics.json").read_text())["training"]["columns"] == NAMED


def test_the_file_of_training_is_predicted_without_an_option(world: Path, tmp_path: Path) -> None:
    done = xmc("predict", world / "run", "--input", world / "own.csv", "--output", tmp_path / "out", "-k", 1)
    assert done.returncode == 0, done.stderr
    assert predicted_uids(tmp_path / "out") == [uid for uid, _, _ in ROWS]
    labels = [row[0] for row in pq.read_table(tmp_path / "out")["labels"].to_pylist()]
    assert np.mean([label == wanted for label, (_, _, wanted) in zip(labels, ROWS, strict=True)]) > 0.9
    embed_files(world / "run", world / "own.csv", tmp_path / "v.npy")
    texts = [text for _, text, _ in ROWS]
    np.testing.assert_allclose(
        np.load(tmp_path / "v.npy"), Retriever.load(world / "run").embed_queries(texts), atol=1e-6
    )


def test_other_names_are_found_and_what_is_named_wins(world: Path, tmp_path: Path) -> None:
    rows = [{"uid": "a", "text": "red", "body": "blue"}, {"uid": "b", "text": "pink", "body": "cyan"}]

    def predicted(name: str, rows: list[dict[str, str]], columns: Columns | None = None) -> list[tuple[str, str]]:
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = JobOptions(columns or Columns())
        predict_files(world / "run", tmp_path / f"{name}.jsonl", tmp_path / name, k=1, options=options)
        out = pq.read_table(tmp_path / name).to_pylist()
        return [(row["uid"], row["labels"][0]) for row in out]

    assert predicted("both", rows) == [("a", "BLUE"), ("b", "CYAN")]
    assert predicted("named", rows, Columns(text="text")) == [("a", "RED"), ("b", "PINK")]
    assert predicted("usual", [{"text": "red"}, {"text": "pink"}]) == [("0", "RED"), ("1", "PINK")]
    keyed = [{"uid": "a", "key": "x", "text": "red"}]
    assert predicted("keyed", keyed) == [("x", "RED")]
    assert predicted("by-uid", keyed, Columns(uid="uid")) == [("a", "RED")]


def test_where_no_column_is_found_the_columns_and_the_option_are_named(world: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,title\n1,red\n")
    with pytest.raises(
        DataError, match=r"in.csv has no column 'body', as the run's data set had, and no 'text', only "
    ):
        predict_files(world / "run", tmp_path / "in.csv", tmp_path / "out")
    done = xmc("predict", world / "run", "--input", tmp_path / "in.csv", "--output", tmp_path / "out")
    fail(done, "only id, title; name the column of texts by --text-column")
    assert not (tmp_path / "out").exists()
    done = xmc(
        "predict", world / "run", "--input", tmp_path / "in.csv", "--output", tmp_path / "out", "--text-column", "title"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_files_of_texts_for_checks_and_tuning(world: Path, tmp_path: Path) -> None:
    """The same options as jobs have, and the same names."""
    texts = "".join(f"{text};é\n" for _, text, _ in ROWS)
    (tmp_path / "own.csv").write_bytes(("body;note\n" + texts).encode("latin-1"))
    (tmp_path / "other.csv").write_text("titre;note\n" + texts)
    found = xmc("index", world / "run", "--recall", 0.5, "--queries", tmp_path / "own.csv", "--out", tmp_path / "a")
    assert found.returncode == 0, found.stderr
    named = ("--queries", tmp_path / "other.csv", "--text-column", "titre", "--delimiter", ";")
    found = xmc("index", world / "run", "--recall", 0.5, *named, "--out", tmp_path / "b")
    assert found.returncode == 0, found.stderr
    assert "measured on 120 queries" in found.stdout
    fail_each(
        (
            ["index", world / "run", "--encoding", "latin-1"],
            "--encoding is for a file of texts, and none is given; leave it out.",
        ),
        (["calibrate", world / "run", world / "data", "--text-column", "body"], "is none; leave it out"),
    )
