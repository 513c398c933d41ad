"""The forms of a job's result: formats that our own reader reads back, and columns of the input beside the answers."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_kills import kill_and_resume
from commands import fail, xmc
from repetitions import kills
from worlds import COLOURS, colours, tiny_config

from xmc.batch import JobOptions, predict_files
from xmc.batch.evaluation import evaluate_files
from xmc.data.files import TextForm, WantedColumn, open_file
from xmc.errors import ConfigError, DataError, InputError, StoreError
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

DATA = colours()
TEST = pa.table({"uid": DATA.split("test").uids, "text": DATA.split("test").texts})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(DATA, tiny_config(epochs=1), tmp_path_factory.mktemp("forms") / "run").directory


def read(folder: Path, separator: str | None = None) -> pa.Table:
    """The predictions of a folder, by our own reader of files."""
    wanted = [WantedColumn("uid", "uid"), WantedColumn("labels", "labels"), WantedColumn("scores", "relevance")]
    files = sorted(folder.glob("part-*"))
    tables = [
        pa.table(open_file(file, wanted, TextForm(separator=separator)).columns(), ["u", "l", "s"]) for file in files
    ]
    return pa.concat_tables(tables)


@pytest.mark.parametrize(("format", "separator"), [("csv", None), ("csv", "|"), ("csv", " ; "), ("jsonl", None)])
def test_what_is_written_is_read_as_what_parquet_holds(
    run: Path, tmp_path: Path, format: str, separator: str | None
) -> None:
    pq.write_table(TEST, tmp_path / "in.parquet")
    options = JobOptions(rows_per_part=40)
    predict_files(run, tmp_path / "in.parquet", tmp_path / "parquet", k=12, options=options)
    form = {"format": format, "separator": separator, "options": options}
    predict_files(run, tmp_path / "in.parquet", tmp_path / format, k=12, **form)  # type: ignore[arg-type]
    names = {file.name for file in (tmp_path / format).iterdir()}
    parts = {f"part-0000{number}" for number in range(3)}
    assert names == {"_job.json", "_SUCCESS"} | {f"{part}.{format}" for part in parts} | {
        f"_{part}.json" for part in parts
    }
    found, expected = read(tmp_path / format, separator), read(tmp_path / "parquet")
    assert found["u"].equals(expected["u"])
    assert found["l"].equals(expected["l"])
    kind = pa.list_(pa.float32())
    assert found["s"].cast(kind).equals(expected["s"].cast(kind))
    done = json.loads((tmp_path / format / "_SUCCESS").read_text())
    assert (done["format"], done.get("separator")) == (format, separator or ("," if format == "csv" else None))
    assert json.loads((tmp_path / "parquet" / "_SUCCESS").read_text())["format"] == "parquet"
    assert evaluate_files(tmp_path / format, DATA).values == evaluate_files(tmp_path / "parquet", DATA).values
    alone = evaluate_files(tmp_path / format / f"part-00000.{format}", DATA, separator=separator)
    assert (alone.missing, alone.longest) == (60, 12)


def test_any_labels_are_read_back_from_csv_or_refused(tmp_path: Path) -> None:
    """What tells labels apart in a cell is decided before the input is looked at."""
    odd = ['say "boat"', "a, b", "two\nlines", "[1]x", "été", "a\tb"]

    def made(uids: list[str]) -> Path:
        directory = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        base = Retriever.load(train(DATA, tiny_config(epochs=1), tmp_path / "base", overwrite=True).directory)
        Retriever.from_model(base.model, uids, [f"text {uid}" for uid in uids], base.config).save(directory)
        return directory

    pq.write_table(TEST[:30], tmp_path / "in.parquet")
    run = made(odd)
    with pytest.raises(
        InputError, match=r"The label 'a, b' would not be read back from a list with ',' between; choose"
    ):
        predict_files(run, tmp_path / "in.parquet", tmp_path / "no", format="csv")
    predict_files(run, tmp_path / "in.parquet", tmp_path / "bars", k=6, format="csv", separator="|", label_texts=True)
    assert {frozenset(labels) for labels in read(tmp_path / "bars", "|")["l"].to_pylist()} == {frozenset(odd)}
    for uids in ([" blank", "a"], ["", "a"], ["['a']", "b"], ["[a", "b]"]):
        with pytest.raises(InputError, match="would not be read back"):
            predict_files(made(uids), tmp_path / "nothing.parquet", tmp_path / "no", format="csv")
    assert not (tmp_path / "no").exists()


def test_forms_that_are_refused(run: Path, tmp_path: Path) -> None:
    pq.write_table(TEST.append_column("many", pa.array([["a"]] * 100)), tmp_path / "in.parquet")

    def refused(kind: type[Exception], message: str, **form: object) -> None:
        with pytest.raises(kind, match=message):
            predict_files(run, tmp_path / "in.parquet", tmp_path / "out", **form)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()

    refused(ConfigError, "There is no output format 'xlsx'; choose one of parquet, csv, jsonl", format="xlsx")
    refused(ConfigError, "A separator is for the format csv", format="jsonl", separator="|")
    refused(ConfigError, r"The separator '.' cannot be told from numbers", format="csv", separator=".")
    refused(ConfigError, "put 'text' into a list", keep_columns="text")
    refused(DataError, r"in.parquet has no column 'note', only uid, text, many", keep_columns=["note"])
    pq.write_table(TEST.append_column("labels", TEST["text"]), tmp_path / "in.parquet")
    refused(
        DataError, r"in.parquet has a column 'labels', and so has the result; rename it, or name", keep_columns=True
    )
    table = TEST.append_column("raw", pa.array([b"x"] * 100))
    pq.write_table(table, tmp_path / "in.parquet")
    for format in ("csv", "jsonl"):
        refused(InputError, f"'raw' is of type binary, which {format} cannot hold", format=format, keep_columns=True)
    arguments = ("predict", run, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out")
    fail(xmc(*arguments, "--keep-columns", "--keep-column", "text"), "give one of them")


KEPT = pa.table(
    {
        "text": ["red", None, "pink, or blue"],
        "number": [1, 2, 3],
        "day": pa.array([datetime.date(2020, 1, 1), None, datetime.date(2020, 1, 3)]),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
        "uid": ["q1", "q2", "q3"],
    }
)


def test_columns_are_kept_with_their_types(run: Path, tmp_path: Path) -> None:
    pq.write_table(KEPT, tmp_path / "in.parquet")
    form = {"k": 2, "options": JobOptions(on_bad_row="null", rows_per_part=2)}
    predict_files(run, tmp_path / "in.parquet", tmp_path / "all", keep_columns=True, **form)  # type: ignore[arg-type]
    out = pq.read_table(tmp_path / "all")
    assert out.schema.names == ["uid", "text", "number", "day", "kind", "labels", "scores"]
    assert [str(kind) for kind in out.schema.types[:5]] == ["string", "string", "int64", "date32[day]", "string"]
    for name in KEPT.column_names:
        assert out[name].to_pylist() == KEPT[name].to_pylist()
    assert out["labels"].is_null().to_pylist() == [False, True, False]
    predict_files(run, tmp_path / "in.parquet", tmp_path / "one", keep_columns=["kind"], **form)  # type: ignore[arg-type]
    assert pq.read_table(tmp_path / "one").select(["kind", "labels"]).equals(out.select(["kind", "labels"]))
    options = JobOptions(on_bad_row="drop")
    predict_files(
        run, tmp_path / "in.parquet", tmp_path / "lines", k=2, keep_columns=True, format="jsonl", options=options
    )
    lines = [orjson.loads(line) for line in (tmp_path / "lines" / "part-00000.jsonl").read_bytes().splitlines()]
    assert lines[1]["labels"] == out["labels"][2].as_py()
    assert {name: lines[1][name] for name in KEPT.column_names} == {
        "text": "pink, or blue", "number": 3, "day": "2020-01-03", "kind": "a", "uid": "q3"
    }  # fmt: skip
    assert len(lines) == 2


def test_columns_of_files_that_differ(run: Path, tmp_path: Path) -> None:
    """A column that a file lacks is null there; a key that the last row alone has is a column."""
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [{"uid": str(row), "text": "red", "n": row} for row in range(1500)] + [
        {"uid": "z", "text": "blue", "late": "l"}
    ]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "b.csv").write_text("uid,text,where\nc,pink,here\n")
    predict_files(run, folder, tmp_path / "out", k=1, keep_columns=True)
    out = pq.read_table(tmp_path / "out")
    assert out.schema.names == ["uid", "text", "n", "late", "where", "labels", "scores"]
    assert out["n"].to_pylist() == [*map(str, range(1500)), None, None]
    assert (out["late"][1500].as_py(), out["where"][1501].as_py()) == ("l", "here")
    pq.write_table(KEPT.select(["uid", "text"]).append_column("n", KEPT["number"]), folder / "c.parquet")
    with pytest.raises(DataError, match=r"'n' of .*c.parquet is of type int64, but of string in a file before"):
        predict_files(run, folder, tmp_path / "no", keep_columns=True)


def test_every_form_is_resumed_bit_for_bit(run: Path, tmp_path: Path) -> None:
    texts = [f"{COLOURS[row % 12]}, number {row}" for row in range(300)]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([row, text] for row, text in enumerate(texts))])
    form = ("--format", "csv", "--separator", "|", "--keep-columns", "--rows-per-part", 100, "--label-texts")
    done = xmc("predict", run, "--input", tmp_path / "in.csv", "--output", tmp_path / "out", *form)
    assert done.returncode == 0, done.stderr
    whole = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with (tmp_path / "out" / "part-00001.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["uid", "id", "text", "labels", "scores", "texts"]
    assert [row["text"] for row in rows] == texts[100:200]
    for name in ("_SUCCESS", "part-00001.csv", "_part-00001.json", "part-00002.csv"):
        (tmp_path / "out" / name).unlink()
    options = JobOptions(rows_per_part=100, resume=True)
    same = {"label_texts": True, "keep_columns": True, "format": "csv", "separator": "|", "options": options}
    summary = predict_files(run, tmp_path / "in.csv", tmp_path / "out", **same)  # type: ignore[arg-type]
    assert summary.resumed == 1
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == whole
    (tmp_path / "out" / "part-00000.csv").write_bytes(whole["part-00000.csv"][:-9])
    with pytest.raises(
        StoreError, match=r"part-00000.csv is not a part that this job wrote, or is broken: it should have"
    ):
        predict_files(run, tmp_path / "in.csv", tmp_path / "out", **same)  # type: ignore[arg-type]
    for message, change in {
        "another format": {"format": "jsonl", "separator": None},
        "another separator": {"separator": ";"},
        "another choice of columns to keep": {"keep_columns": ["id"]},
    }.items():
        with pytest.raises(StoreError, match=message):
            predict_files(run, tmp_path / "in.csv", tmp_path / "out", **(same | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "format", [pytest.param("csv", marks=pytest.mark.nightly), pytest.param("jsonl", marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_nothing_is_lost(run: Path, tmp_path: Path, format: str) -> None:
    rows = 60_000
    texts = [f"{COLOURS[row % 12]}, number {row}" for row in range(rows)]
    pq.write_table(pa.table({"uid": list(map(str, range(rows))), "text": texts}), tmp_path / "in.parquet")
    arguments = [run, "--input", tmp_path / "in.parquet", "--rows-per-part", 1000, "-k", 5, "--format", format]
    predict_files(
        run, tmp_path / "in.parquet", tmp_path / "whole", k=5, format=format, options=JobOptions(rows_per_part=1000)
    )
    assert kill_and_resume(arguments, tmp_path / "out", kills=kills(3), start=3.0, seed=1) == kills(3)
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
