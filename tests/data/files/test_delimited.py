"""CSV: what RFC 4180 calls a record is read as it is, whatever stands in it; what is none costs its own line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from commands import fail, xmc
from record_files import bad_rows, converted, good_rows, read_by_conversion, read_by_job

from xmc.batch.options import Columns
from xmc.batch.rows import check_rows
from xmc.data.convert import convert
from xmc.data.files import TextForm, WantedColumn, open_file
from xmc.data.readers import open_source
from xmc.data.validate import validate
from xmc.errors import ConfigError, DataError

TEXT = (WantedColumn("text", "text"),)


def write(path: Path, rows: list[list[str]], delimiter: str = ",", end: str = "\n") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
    return path


def test_quoted_line_breaks_far_beyond_a_block(tmp_path: Path) -> None:
    cell = "\n".join(f'a line, with a comma and "quotes" {number}' for number in range(30))
    rows = [[str(row), cell, "a;b"] for row in range(3_000)]
    file = write(tmp_path / "in.csv", [["uid", "text", "labels"], *rows])
    assert file.stat().st_size > 3 << 20
    expected = [(str(row), cell, {"a", "b"}) for row in range(3_000)]
    assert read_by_conversion(file, tmp_path / "out", separator=";") == expected
    assert read_by_job(file, rows_per_part=700) == [row[:2] for row in expected]


def test_a_cell_of_many_megabytes(tmp_path: Path) -> None:
    long = 'x"y\n,' * (1 << 20)
    file = write(tmp_path / "in.csv", [["text", "labels"], [long, "a"], ["b", "a"]])
    assert good_rows(file, wanted=TEXT) == [long, "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_a_last_line_without_one(tmp_path: Path, end: str, last: bool) -> None:
    content = end.join(["uid,text,labels", "1,red,a", "", '2,"two\nlines",b', "3,blue,c"]) + (end if last else "")
    (tmp_path / "in.csv").write_bytes(content.encode())
    assert good_rows(tmp_path / "in.csv") == [("1", "red", ["a"]), ("2", "two\nlines", ["b"]), ("3", "blue", ["c"])]
    assert bad_rows(tmp_path / "in.csv") == []


def test_a_quote_that_never_closes_costs_its_own_row(tmp_path: Path) -> None:
    lines = [f"{row},text {row},a" for row in range(1, 101)]
    lines[4] = '5,"text 5,a'
    file = tmp_path / "in.csv"
    file.write_text("\n".join(["uid,text,labels", *lines]) + "\n")
    (bad,) = bad_rows(file)
    assert bad[:2] == (6, "malformed line")
    assert "opens a quote that is not closed" in bad[2]
    good = [(str(row), f"text {row}") for row in range(1, 101) if row != 5]
    assert [row[:2] for row in read_by_conversion(file, tmp_path / "out", "drop")] == good
    assert read_by_job(file) == read_by_job(file, rows_per_part=3) == good
    with pytest.raises(DataError, match=r"in.csv, line 6: the record opens a quote that is not closed"):
        converted(file, tmp_path / "other")
    fail(xmc("data", "convert", file, tmp_path / "other"), "line 6: the record opens a quote that is not closed")


@pytest.mark.parametrize(
    "later",
    [
        '9,"quoted, text",a',
        '9,"a ""word"" in it",a',
        '9,"two\nlines",a',
        '"9","all","quoted"',
        '9,"",a',
        '9,", text",a',
    ],
)
def test_a_later_quote_does_not_close_it(tmp_path: Path, later: str) -> None:
    lines = [f"{row},text {row},a" for row in range(1, 30)]
    lines[4], lines[8] = '5,"text 5,a', later
    file = tmp_path / "in.csv"
    file.write_text("\n".join(["uid,text,labels", *lines]) + "\n")
    assert [line for line, _, _ in bad_rows(file)] == [6]
    assert [uid for uid, _, _ in good_rows(file)] == [str(row) for row in range(1, 30) if row != 5]


def test_cells_whose_lines_look_like_records_are_read_and_remarked_upon(tmp_path: Path) -> None:
    poem = "one,two,three\nfour,five,six\nseven,eight,nine"
    long = "\n".join(str(line) for line in range(200))
    rows = [["1", "x", "a"], ["2\n3,4,5\n6", "t", "7\n8,9,10"], ["4", long, "b"], ["5", poem, "b"]]
    file = write(tmp_path / "in.csv", [["uid", "text", "labels"], *rows])
    assert good_rows(file) == [(uid, text, labels.split(",")) for uid, text, labels in rows]
    done = converted(file, tmp_path / "out")
    assert done.warnings == {"record of more than 100 lines": 1}
    file.write_text('uid,text,labels\n1,"red,a\n2,green,a\n3,the 5",a\n4,blue,a\n')  # RFC 4180: two records
    assert [row[0] for row in good_rows(file)] == ["1", "4"]
    assert converted(file, tmp_path / "out").warnings == {"record whose lines look like records": 1}
    (defect,) = validate(open_source(file))
    assert "line 2: a record whose lines look like records: read as one row, which is right unless a quote" in str(
        defect
    )
    batch = next(open_file(file, Columns().wanted, TextForm()).batches())
    assert check_rows(batch, Columns(), 0).remarks == {"record whose lines look like records": 1}


def test_what_follows_a_record_that_is_not_sound_is_no_row_by_accident(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text('text,labels\n"one\ntwo",a,surplus\n"he said "so" and\nwent",a\nred,b\n5" wide,c\n')
    assert good_rows(file, wanted=TEXT) == ["red", '5" wide']
    assert [(line, reason) for line, reason, _ in bad_rows(file, wanted=TEXT)] == [
        (2, "malformed line"),
        (3, "malformed line"),
        (4, "malformed line"),
        (5, "malformed line"),
    ]


def test_a_file_full_of_open_quotes_is_read_once_not_again_for_each(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    line = 'a",b,"' + "c" * 90 + "\n"
    file.write_text("text,labels\n" + line * 20_000 + "red,a\n")
    assert good_rows(file, wanted=TEXT) == ["red"]
    assert len(bad_rows(file, wanted=TEXT)) == 20_000


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_recognised(tmp_path: Path, delimiter: str) -> None:
    rows = [["uid", "text", "labels"], ["1", "a, b; c| d\te", "sea"], ["2", 'x"y', "ship"]]
    for name in ("in.csv", "in.tsv", "in.tab"):
        file = write(tmp_path / name, rows, delimiter)
        assert good_rows(file) == [("1", "a, b; c| d\te", ["sea"]), ("2", 'x"y', ["ship"])]


def test_a_delimiter_that_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "in.csv", [["uid", "text", "labels"], ["1", "a~b", "sea"]], "~")
    with pytest.raises(
        DataError, match=r"no columns 'text' and 'labels', only uid~text~labels; .*--delimiter names another one"
    ):
        good_rows(file)
    assert good_rows(file, TextForm(delimiter="~")) == [("1", "a~b", ["sea"])]
    file = write(tmp_path / "in.csv", [["uid", "text", "labels"], ["1", "a,b", "sea"]], "\t")
    for name in ("\\t", "tab"):
        done = xmc("data", "validate", file, "--delimiter", name)
        assert done.returncode == 0, done.stderr
    fail(xmc("data", "validate", file, "--delimiter", "::"), "A delimiter is one character")
    with pytest.raises(ConfigError, match="A delimiter is one character"):
        TextForm(delimiter='"')


def test_cells_stay_as_they_are_written(tmp_path: Path) -> None:
    cells = [
        "007",
        "2020-01-01",
        "1.0",
        "-0",
        "1e400",
        "NaN",
        "null",
        "true",
        " a ",
        "",
        "None",
        "\x00x",
        "\u2028",
        "🜚",
    ]
    file = write(tmp_path / "in.csv", [["uid", "text", "labels"], *([str(n), c, "a"] for n, c in enumerate(cells))])
    assert [text for _, text, _ in good_rows(file)] == cells
    dates = write(
        tmp_path / "dates.csv", [["uid", "text", "labels"], *([c, "x", c] for c in cells if c.strip() == c != "")]
    )
    assert [(uid, labels) for uid, _, labels in good_rows(dates)] == [(c, [c]) for c in cells if c.strip() == c != ""]


def test_blank_lines_in_a_file_of_one_column_are_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("\ntext\nred\n\nblue\n\n\n")
    assert good_rows(tmp_path / "in.csv", wanted=TEXT) == ["red", "", "blue"]
    (tmp_path / "in.tsv").write_text("text\tlabels\nred\ta\n   \n\t\nblue\ta\n")
    assert good_rows(tmp_path / "in.tsv", wanted=TEXT) == ["red", "", "blue"]
    assert bad_rows(tmp_path / "in.tsv", wanted=TEXT) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"has no line with the names of its columns \(line 1: the file is empty\)"),
        ("\n\n", r"has no line with the names of its columns"),
        ('"text,labels\nred,a\n', r"no line with the names of its columns \(line 1: the record opens a quote"),
        ("id,text,text,labels\n1,red,blue,a\n", r"has the column 'text' more than once; rename one"),
        ("id,body,tags\n1,red,a\n", r"has no columns 'text' and 'labels', only id, body, tags; name the right ones"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        good_rows(tmp_path / "in.csv")
    with pytest.raises(DataError, match=r"in.csv has (no|the) (column|line)"):
        converted(tmp_path / "in.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("uid,text,labels")
    assert good_rows(tmp_path / "in.csv") == bad_rows(tmp_path / "in.csv") == []
    assert read_by_job(tmp_path / "in.csv") == []


def test_a_column_that_is_named_must_be_there(tmp_path: Path) -> None:
    file = write(tmp_path / "in.csv", [["id", "text", "labels", "rel"], ["1", "red", "a", "0.5"]])
    for column in ("uid", "relevance", "rejected", "text", "labels"):
        with pytest.raises(DataError, match="has no column 'idd', only id, text, labels, rel; name the right one"):
            converted(file, tmp_path / "out", **{column: "idd"})
    fail(
        xmc("data", "convert", file, tmp_path / "out", "--relevance-column", "idd"),
        "has no column 'idd', only id, text",
    )
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.csv", [["text", "labels"], ["red", "a"]])
    write(tmp_path / "set" / "labels.csv", [["uid", "name"], ["a", "A"]])
    with pytest.raises(DataError, match=r"labels.csv has no column 'text', only uid, name"):
        converted(tmp_path / "set", tmp_path / "out")
    named = converted(tmp_path / "set", tmp_path / "out", label_text="name").dataset
    assert named.labels.texts.to_pylist() == ["A"]


def test_a_defect_names_the_line_where_its_record_begins(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('text,labels\n"one\ntwo\nthree",a\n\nred\n')
    (defect,) = [d for d in validate(open_source(tmp_path / "in.csv")) if d.severity == "error"]
    assert (defect.line, defect.unit) == (6, "line")
    assert "line 6: the record has 1 cells, but the header names 2 columns" in str(defect)


@pytest.mark.parametrize("relevance", ["1e39", "1e-60", "-1", "nan"])
def test_relevances_that_are_not_numbers_of_float32(tmp_path: Path, relevance: str) -> None:
    (tmp_path / "in.csv").write_text(f"text,labels,relevance\nred,a,{relevance}\nblue,a,3e38\nsea,a,0\n")
    with pytest.raises(DataError, match=r"in.csv, line 2: relevance .* is not a finite number >= 0"):
        convert(open_source(tmp_path / "in.csv"), tmp_path / "out")
    data = convert(open_source(tmp_path / "in.csv"), tmp_path / "out", on_bad_row="drop").dataset
    assert data.targets("train").positives.data.tolist() == [np.float32(3e38)]
