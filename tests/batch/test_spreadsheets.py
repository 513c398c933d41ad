"""CSV for spreadsheets: no cell is a formula, numbers stay numbers, and xmc reads back what it was given."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import xmc
from hypothesis import given
from hypothesis import strategies as st
from worlds import tiny_config

from xmc.batch import predict_files
from xmc.batch.evaluation import evaluate_files
from xmc.batch.spreadsheets import escaped, restored, restored_lists
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError
from xmc.training.trainer import train

FORMULAS = ["=cmd(' /C calc')!A0", "+1+cmd(x)", "-2+3+cmd(x)", "@SUM(A1)", "＝1+1", "'=quoted"]
NAMES = [*FORMULAS, "-0.5", "white", "brown", "grey's", "'apostrophe", "12"]
WORDS = ["red", "green", "blue", "black", "yellow", "pink", "cyan", "white", "brown", "grey", "apostrophe", "twelve"]
LISTS = [[row % 12, *([(row * 7) % 12] if row % 3 and (row * 7) % 12 != row % 12 else [])] for row in range(120)]
TEXTS = [" and ".join(WORDS[label] for label in labels) for labels in LISTS]
UIDS = [f"={row}" if row % 2 else f"-{row}" for row in range(120)]
DATA = Dataset.from_lists(
    "formulas",
    WORDS,
    {"train": (TEXTS, LISTS), "test": (TEXTS, LISTS)},
    label_uids=NAMES,
    query_uids={"test": UIDS},
)
TEST = pa.table({"uid": UIDS, "text": TEXTS, "=n": [-1.5] * 120})


@pytest.mark.parametrize(
    "text", ["=1", "+1+1", "-1x", "@x", "\tx", "\rx", "\n=x", "＝x", "－", "'=1", "''=1", "-", "=", "-1\n=x"]
)
def test_formulas_are_escaped_and_restored(text: str) -> None:
    cells = escaped(pa.array([text, None, "a=1"]))
    assert cells.to_pylist() == [f"'{text}", None, "a=1"]
    assert restored(cells).to_pylist() == [text, None, "a=1"]


@pytest.mark.parametrize("text", ["-0.5", "+3", "-1,5", "-1e-05", "a", "", "'a", "''", "0"])
def test_numbers_and_words_stay(text: str) -> None:
    assert escaped(pa.array([text])).to_pylist() == [text]
    assert restored(pa.array([text])).to_pylist() == [text]


@given(st.lists(st.one_of(st.none(), st.text(alphabet="'=-+@\t1.e,a＝", max_size=6)), max_size=9))
def test_every_text_is_restored(texts: list[str | None]) -> None:
    assert restored(escaped(pa.array(texts, pa.string()))).to_pylist() == texts


@given(
    st.lists(st.one_of(st.none(), st.lists(st.text(alphabet="'=-1.a", min_size=1, max_size=4), max_size=3)), max_size=6)
)
def test_every_list_is_restored(lists: list[list[str] | None]) -> None:
    cells = escaped(pa.array([None if items is None else "|".join(items) for items in lists], pa.string())).to_pylist()
    split = [None if text is None else text.split("|") if text else [] for text in cells]
    assert restored_lists(pa.array(split, pa.list_(pa.string()))).to_pylist() == lists


def test_a_job_for_spreadsheets(tmp_path: Path) -> None:
    run = train(DATA, tiny_config(epochs=1), tmp_path / "run").directory
    pq.write_table(TEST, tmp_path / "in.parquet")
    given = {"k": 3, "keep_columns": True, "label_texts": True}
    predict_files(run, tmp_path / "in.parquet", tmp_path / "parquet", **given)  # type: ignore[arg-type]
    form = ("--k", 3, "--keep-columns", "--label-texts", "--format", "csv", "--separator", "|")
    done = xmc("predict", run, "--input", tmp_path / "in.parquet", "--output", tmp_path / "csv", *form)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "csv" / "part-00000.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    expected = pq.read_table(tmp_path / "parquet" / "part-00000.parquet")
    assert header == ["uid", "text", "'=n", "labels", "scores", "texts"]
    assert [row[0] for row in rows] == [uid if uid[0] == "-" else f"'{uid}" for uid in expected["uid"].to_pylist()]
    assert {row[2] for row in rows} == {"-1.5"}
    formulas = [cell for row in rows for cell in (row[0], row[3]) if cell[0] in "=+-@＝"]
    assert all(re.fullmatch(r"-[\d.]+", cell) for cell in formulas)
    assert any(row[3].startswith("'=") for row in rows)
    assert any("-" in row[4] for row in rows)  # scores as they are
    assert "'" not in "".join(row[4] for row in rows)
    kept = {"formulas": "keep", "format": "csv", "separator": "|"}
    predict_files(run, tmp_path / "in.parquet", tmp_path / "kept", **given, **kept)  # type: ignore[arg-type]
    raw = (tmp_path / "kept" / "part-00000.csv").read_text(encoding="utf-8")
    assert raw.startswith('"uid","text","=n"')
    assert raw.count("\n") == 121

    # All are read back as what Parquet holds; a part alone too.
    values = [
        evaluate_files(tmp_path / source, DATA, separator="|" if alone else None).values
        for source, alone in (("parquet", False), ("csv", False), ("kept", False), ("csv/part-00000.csv", True))
    ]
    assert values[0] == values[1] == values[2] == values[3]
    assert values[0]["P@1"] > 20


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    for options, said in (
        ({"format": "jsonl", "formulas": "keep"}, "for the format csv"),
        ({"format": "csv", "formulas": "run"}, "'escape' or 'keep', but are 'run'"),
        ({"format": "csv", "separator": "'"}, "cannot be told from what formulas are escaped by"),
    ):
        with pytest.raises(ConfigError, match=said):
            predict_files(tmp_path / "run", tmp_path / "in.csv", tmp_path / "out", **options)
