"""`xmc labels`: what it prints, refuses and leaves, once in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail_each
from commands import xmc as command
from typer.testing import CliRunner
from worlds import colours, tiny_config

import xmc
from xmc.cli import app
from xmc.data.files import TextForm
from xmc.data.label_rows import LabelRows
from xmc.errors import DataError
from xmc.search.run_directory import RunDirectory

EXAMPLES = [f"item {number} turquoise and red" for number in range(5)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose labels have a column of numbers."""
    directory = tmp_path_factory.mktemp("labels") / "run"
    xmc.train(colours(), tiny_config(), directory)
    retriever = xmc.Retriever.load(directory)
    retriever.set_columns({"uid": ["RED"], "price": [3]})
    retriever.save(directory, overwrite=True)
    return directory


def json_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_added_updated_removed(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    rows = [
        {"uid": "MAUVE", "text": "mauve", "price": 7, "shade": "light"},
        {"uid": "TURQUOISE", "examples": EXAMPLES, "negatives": ["red"], "price": None},
    ]
    done = command("labels", "add", run, json_lines(tmp_path / "new.jsonl", rows), "--out", tmp_path / "more")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2 labels added"
    assert done.stdout.count("1 of them scaled by ") == 2
    assert done.stdout.splitlines()[-1] == f"run with 14 labels in {tmp_path / 'more'}"
    assert len(xmc.Retriever.load(run)) == 12
    more = xmc.Retriever.load(tmp_path / "more")
    table = {row["uid"]: row for row in more.labels.table.to_pylist()}
    assert (table["MAUVE"]["price"], table["MAUVE"]["shade"], table["MAUVE"]["xmc_examples"]) == (7, "light", 0)
    assert (table["TURQUOISE"]["text"], table["TURQUOISE"]["xmc_examples"]) == ("", 5)

    changes = tmp_path / "changes.csv"
    changes.write_text('uid,text,examples,price\nRED,,"a red, big item | item in red",\nMAUVE,,,8\n', encoding="utf-8")
    updated = CliRunner().invoke(app, ["labels", "update", str(tmp_path / "more"), str(changes), "--score", "raw"])
    assert updated.exit_code == 0, updated.output
    assert updated.stdout.splitlines()[:2] == ["2 labels updated", "1 of them by raw scores"]
    table = {row["uid"]: row for row in xmc.Retriever.load(tmp_path / "more").labels.table.to_pylist()}
    assert (table["RED"]["text"], table["RED"]["xmc_examples"], table["RED"]["price"]) == ("red", 2, None)
    assert table["MAUVE"]["price"] == 8

    gone = tmp_path / "gone.parquet"
    pq.write_table(pa.table({"uid": ["MAUVE", "RED"]}), gone)
    assert CliRunner().invoke(app, ["labels", "remove", str(tmp_path / "more"), str(gone)]).exit_code == 0
    assert "MAUVE" not in xmc.Retriever.load(tmp_path / "more").labels.uids.to_pylist()


def test_bad_rows_are_all_named_and_nothing_is_changed(trained: Path, tmp_path: Path) -> None:
    """Exit code 2 and one sentence."""
    before = RunDirectory(trained).fingerprint
    rows: list[dict[str, Any]] = [
        {"uid": "A", "text": "a"},
        {"uid": "RED", "text": "red"},
        {"uid": "B", "text": " "},
        {"uid": "C", "examples": ["x"], "text": 3},
        {"text": "d"},
        {"uid": "A", "text": "again"},
        {"uid": "E", "examples": [""]},
    ]
    shape, meaning = [rows[0], *rows[3:]], rows[:3]
    file, other = json_lines(tmp_path / "shape.jsonl", shape), json_lines(tmp_path / "meaning.jsonl", meaning)
    unknown = json_lines(tmp_path / "unknown.jsonl", [{"uid": "RED"}, {"uid": "GONE"}])
    idle = json_lines(tmp_path / "idle.jsonl", [{"uid": "RED"}])
    typed = json_lines(tmp_path / "typed.jsonl", [{"uid": "A", "text": "a", "price": "cheap"}])
    fail_each(
        (
            ("labels", "add", trained, file),
            f"{file} has 4 bad rows, and nothing was changed: line 2: the text 3 is not",
        ),
        (("labels", "add", trained, file), "line 3: the row has no uid. line 4: the label 'A' has a row already."),
        (("labels", "add", trained, file), "line 5: an example of the label 'E' is empty"),
        (
            ("labels", "add", trained, other),
            "has 2 bad rows, and nothing was changed: line 2: the label 'RED' is already",
        ),
        (("labels", "add", trained, other), "line 3: the label 'B' has neither a text nor an example."),
        (
            ("labels", "update", trained, unknown),
            "1 bad row, and nothing was changed: line 2: there is no label 'GONE'",
        ),
        (("labels", "update", trained, idle), "says nothing beside its uid"),
        (("labels", "remove", trained, unknown), "there is no label 'GONE' in this run"),
        (("labels", "add", trained, typed), "the column 'price' of the run's labels is of type int64"),
        (("labels", "add", trained, tmp_path / "none.csv"), "cannot be read"),
        (("labels", "add", trained, other, "--expected-rate", "7"), "has 2 bad rows"),
        (("labels", "add", tmp_path / "no-run", other), "no-run"),
    )
    assert RunDirectory(trained).fingerprint == before


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    file = json_lines(tmp_path / "bad.jsonl", [{"uid": None, "text": "x"}] * 30)
    with pytest.raises(DataError, match=r"has 30 bad rows.*line 20: the row has no uid\. \(and 10 more\)"):
        LabelRows.read(file, TextForm())
