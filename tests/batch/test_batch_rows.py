"""Batch jobs and bad input: every row is predicted, refused, null or dropped, and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.batch import Columns, JobOptions, predict_files
from xmc.batch.rows import LONGEST_TEXT
from xmc.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("batch") / "run"
    xmc.train(colours(), tiny_config(epochs=1), out=directory)
    return directory


def strings(values: list[bytes | None]) -> pa.Array:
    """Strings as a careless program writes them: not all of them are UTF-8."""
    return pa.array(values, pa.binary()).view(pa.string())


MIXED = pa.table(
    {
        "uid": pa.array(["a", "b", "c", "d", None, "f", "g", "h"]),
        "text": strings([b"red", None, b"", b" \t", b"blue", b"gr\xffeen", b"pink\x00\x07", b"grey"]),
    }
)
BAD = {"null text": 1, "empty text": 2, "null uid": 1, "text that is not UTF-8": 1}


def test_bad_rows_are_refused_with_their_place(run: Path, tmp_path: Path) -> None:
    pq.write_table(MIXED, tmp_path / "in.parquet")
    with pytest.raises(
        DataError, match=r"in.parquet, row 2 \(uid 'b'\) cannot be used; .* 1 x null text.*--on-bad-row"
    ):
        predict_files(run, tmp_path / "in.parquet", tmp_path / "out")
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert not list((tmp_path / "out").glob("*part*"))


@pytest.mark.parametrize("policy", ["null", "drop"])
def test_bad_rows_are_null_or_dropped_and_counted(run: Path, tmp_path: Path, policy: str) -> None:
    pq.write_table(MIXED, tmp_path / "in.parquet")
    options = JobOptions(on_bad_row=policy, rows_per_part=3)
    summary = predict_files(run, tmp_path / "in.parquet", tmp_path / "out", k=2, options=options)
    assert summary.bad == BAD
    assert summary.remarks == {"control characters": 1}
    assert (summary.rows, summary.predicted) == (8, 3)
    out = pq.read_table(tmp_path / "out")
    if policy == "null":
        assert (summary.null, summary.dropped) == (5, 0)
        assert out["uid"].to_pylist() == MIXED["uid"].to_pylist()
        good = [row is not None for row in out["labels"].to_pylist()]
        assert good == [True, False, False, False, False, False, True, True]
        assert out["scores"].is_valid().to_pylist() == good
    else:
        assert (summary.null, summary.dropped) == (0, 5)
        assert out["uid"].to_pylist() == ["a", "g", "h"]
    assert out["labels"].to_pylist()[0][0] == "RED"
    done = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert done["bad"] == BAD
    assert done["remarks"] == {"control characters": 1}


def test_a_job_may_drop_every_row(run: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a", "b"], "text": ["", None]}), tmp_path / "in.parquet")
    summary = predict_files(run, tmp_path / "in.parquet", tmp_path / "out", options=JobOptions(on_bad_row="drop"))
    assert (summary.rows, summary.predicted, summary.dropped, summary.duplicate_uids) == (2, 0, 2, 0)
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert pq.read_table(tmp_path / "out").num_rows == 0


def test_a_refused_job_goes_on_with_another_policy(run: Path, tmp_path: Path) -> None:
    table = pa.table({"uid": [str(row) for row in range(9)], "text": [*["red"] * 5, None, *["blue"] * 3]})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"row 6 \(uid '5'\)"):
        predict_files(run, tmp_path / "in.parquet", tmp_path / "out", options=JobOptions(rows_per_part=3))
    assert [file.name for file in (tmp_path / "out").glob("*part*")] == ["part-00000.parquet"]
    options = JobOptions(rows_per_part=3, resume=True, on_bad_row="drop")
    summary = predict_files(run, tmp_path / "in.parquet", tmp_path / "out", options=options)
    assert (summary.resumed, summary.predicted, summary.dropped) == (1, 8, 1)


def test_long_texts_are_cut_at_a_character(run: Path, tmp_path: Path) -> None:
    long = "red " + "ü" * LONGEST_TEXT
    table = pa.table({"uid": [str(row) for row in range(5)], "text": ["blue", *[long] * 4]})
    pq.write_table(table, tmp_path / "in.parquet")
    summary = predict_files(run, tmp_path / "in.parquet", tmp_path / "out", k=1)
    assert summary.remarks == {"text cut to 1,048,576 bytes": 4}
    assert summary.predicted == 5


def test_duplicate_uids_are_predicted_each_and_counted(run: Path, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"uid": ["a", "b", "a", "a"], "text": ["red", "blue", "red", "pink"]}), tmp_path / "i.parquet"
    )
    summary = predict_files(run, tmp_path / "i.parquet", tmp_path / "out", options=JobOptions(rows_per_part=2))
    assert (summary.predicted, summary.duplicate_uids) == (4, 2)
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["duplicate_uids"] == 2


def test_embeddings_and_tokens_that_cannot_be_used(run: Path, tmp_path: Path) -> None:
    good = [0.5] * 32
    vectors = [good, None, good[:-1], [*good[:-1], None], [*good[:-1], float("nan")]]
    table = pa.table({"uid": list("abcde"), "v": vectors, "t": [[1, 2], None, [3], [None], []]})
    pq.write_table(table, tmp_path / "in.parquet")
    options = JobOptions(Columns(embedding="v"), on_bad_row="null")
    summary = predict_files(run, tmp_path / "in.parquet", tmp_path / "v", options=options)
    assert summary.bad == {
        "null embedding": 1,
        "embedding of another length": 1,
        "null in an embedding": 1,
        "embedding with NaN or infinity": 1,
    }
    options = JobOptions(Columns(tokens="t"), on_bad_row="drop")
    summary = predict_files(run, tmp_path / "in.parquet", tmp_path / "t", options=options)
    assert summary.bad == {"null tokens": 1, "null token": 1}
    assert pq.read_table(tmp_path / "t")["uid"].to_pylist() == ["a", "c", "e"]


def test_lines_of_csv_that_are_no_rows(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('uid,text\n007,red\n8,blue,green\n9,"pink\nand grey"\n10\n11,cyan\n')
    with pytest.raises(DataError, match=r"in.csv, line 3: .* has 3 cells, but the header names 2 columns"):
        predict_files(run, tmp_path / "in.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for policy in ("null", "drop"):
        options = JobOptions(on_bad_row=policy)
        summary = predict_files(run, tmp_path / "in.csv", tmp_path / policy, options=options)
        assert summary.bad == {"line with another number of cells": 2}
        assert (summary.rows, summary.predicted, summary.dropped + summary.null) == (5, 3, 2)
        uids = pq.read_table(tmp_path / policy)["uid"].to_pylist()
        assert uids == (["007", None, "9", None, "11"] if policy == "null" else ["007", "9", "11"])


def test_a_column_of_json_that_begins_with_nulls(run: Path, tmp_path: Path) -> None:
    rows = [{"uid": 1, "text": None}, {"uid": 2, "text": "red"}, {"uid": 3}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = predict_files(run, tmp_path / "in.jsonl", tmp_path / "out", options=JobOptions(on_bad_row="drop"))
    assert (summary.predicted, summary.bad) == (1, {"null text": 2})
    assert pq.read_table(tmp_path / "out")["uid"].to_pylist() == ["2"]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("no.parquet", None, r"no\.parquet does not exist"),
        ("in.txt", b"red", r"ends with none of .parquet"),
        ("in.parquet", b"PAR1 and nothing more", r"in.parquet cannot be read.*Is the file complete"),
        ("in.csv", b"uid,texts\na,red\n", r"in.csv has no column 'text', only uid, texts"),
        ("in.csv", b"uid,text,text\na,red,blue\n", r"the column 'text' more than once"),
        ("in.csv", b"", r"in.csv has no line with the names of its columns"),
        ("in.csv", b"uid,text\na,red\n\x8a\xff\n", r"in.csv, line 3: .*1 cells, but the header names 2"),
        ("in.jsonl", b'{"uid": 1, "text": "a"}\n{"uid": 2, "te', r"in.jsonl, line 2: the line is not JSON"),
    ],
)
def test_input_that_is_refused_before_anything_is_done(
    run: Path, tmp_path: Path, name: str, write: bytes | None, message: str
) -> None:
    if write is not None:
        (tmp_path / name).write_bytes(write)
    with pytest.raises(DataError, match=message):
        predict_files(run, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cells_of_json_that_mean_nothing_are_bad_rows(run: Path, tmp_path: Path) -> None:
    lines = ['{"uid": 1.5, "text": "red"}', '{"uid": 2, "text": 7}', '{"uid": 3, "text": "red"}', "", '{"uid": true}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"in.jsonl, line 1 .*the uid 1.5 is not a string or a whole number"):
        predict_files(run, tmp_path / "in.jsonl", tmp_path / "out")
    summary = predict_files(run, tmp_path / "in.jsonl", tmp_path / "out2", options=JobOptions(on_bad_row="drop"))
    assert summary.bad == {"uid that is no string": 2, "text that is no string": 1}
    assert pq.read_table(tmp_path / "out2")["uid"].to_pylist() == ["3"]


def test_files_of_different_types_are_read_each_by_its_own(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"uid": ["a"], "text": ["red"]}), folder / "a.parquet")
    pq.write_table(pa.table({"uid": ["b"], "text": pa.nulls(1)}), folder / "b.parquet")
    pq.write_table(pa.table({"uid": ["c"], "text": pa.array(["red"]).dictionary_encode()}), folder / "c.parquet")
    pq.write_table(pa.table({"uid": [4], "text": ["red"]}), folder / "d.parquet")
    (folder / "e.csv").write_text("text;uid\nred;007\n")
    summary = predict_files(run, folder, tmp_path / "out", k=1, options=JobOptions(on_bad_row="null"))
    assert (summary.predicted, summary.null) == (4, 1)
    out = pq.read_table(tmp_path / "out")
    assert out["uid"].to_pylist() == ["a", "b", "c", "4", "007"]
    assert out["labels"].to_pylist() == [["RED"], None, ["RED"], ["RED"], ["RED"]]


def test_a_file_that_is_damaged_inside_stops_the_job(run: Path, tmp_path: Path) -> None:
    texts = [f"red {row} blue" for row in range(30_000)]
    table = pa.table({"uid": list(map(str, range(30_000))), "text": texts})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=10_000, compression="zstd")
    content = bytearray((tmp_path / "in.parquet").read_bytes())
    column = pq.read_metadata(tmp_path / "in.parquet").row_group(2).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + 30 : start + 400] = bytes(370)
    (tmp_path / "in.parquet").write_bytes(content)
    options = JobOptions(rows_per_part=10_000, on_bad_row="drop")
    with pytest.raises(DataError, match=r"in.parquet cannot be read past row 20,000"):
        predict_files(run, tmp_path / "in.parquet", tmp_path / "out", options=options)
    assert sorted(file.name for file in (tmp_path / "out").glob("*part*")) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_options_that_are_none() -> None:
    for options in ({"on_bad_row": "skip"}, {"engine": "spark"}, {"rows_per_part": 0}, {"workers": 2}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            JobOptions(**options)  # type: ignore[arg-type]
