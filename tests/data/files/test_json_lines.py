"""JSON lines: values keep their own type, row by row, however long a row is and wherever a key first stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import fail, xmc
from record_files import bad_rows, converted, good_rows, read_by_conversion, read_by_job

from xmc.batch.options import Columns
from xmc.data.files import WantedColumn, open_file
from xmc.errors import DataError

TEXT = (WantedColumn("text", "text"),)
LABELS = (WantedColumn("labels", "labels"),)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_a_row_of_megabytes(tmp_path: Path) -> None:
    long = "a word " * 450_000
    rows = [{"uid": "1", "text": "red", "labels": ["a"]}, {"uid": "2", "text": long, "labels": ["b"]}]
    file = write(tmp_path / "in.jsonl", rows)
    assert read_by_conversion(file, tmp_path / "out") == [("1", "red", {"a"}), ("2", long, {"b"})]
    assert [uid for uid, _ in read_by_job(file)] == ["1", "2"]


def test_what_changes_far_behind_the_first_megabyte(tmp_path: Path) -> None:
    """A list that is empty at first, a key that first stands late, a column that nobody uses and changes its type."""
    many = 12_000
    rows: list[dict[str, Any]] = [
        {"text": f"text {row} {'x' * 160}", "labels": [], "odd": row if row < many - 9 else [{"a": None}]}
        for row in range(many)
    ]
    rows[-1] |= {"uid": "last", "labels": ["sea", "ship"]}
    rows[-2] |= {"uid": "last but one", "odd": "2020-01-01"}
    file = write(tmp_path / "in.jsonl", rows)
    assert file.stat().st_size > 2 << 20
    found = good_rows(file)
    assert len(found) == many
    assert found[-1] == ("last", rows[-1]["text"], ["sea", "ship"])
    assert found[0] == (None, rows[0]["text"], [])
    assert read_by_job(file, Columns(uid="uid"))[-1] == ("last", rows[-1]["text"])
    assert [uid for uid, _, _ in read_by_conversion(file, tmp_path / "out", "drop", uid="uid")] == [
        "last but one",
        "last",
    ]


def test_strings_are_strings_whatever_they_look_like(tmp_path: Path) -> None:
    cells = [
        "2020-01-01",
        "2020-01-01T00:00:00Z",
        "1.0",
        "007",
        "null",
        "true",
        "NaN",
        "-0",
        "1e400",
        " a ",
        "\x00",
        "🜚",
    ]
    file = write(tmp_path / "in.jsonl", [{"uid": cell, "text": cell, "labels": [cell]} for cell in cells])
    assert good_rows(file) == [(cell, cell, [cell]) for cell in cells]
    assert read_by_conversion(file, tmp_path / "out") == [(cell, cell, {cell}) for cell in cells]
    assert read_by_job(file) == [(cell, cell) for cell in cells]


def test_whole_numbers_stay_whole_beside_other_numbers(tmp_path: Path) -> None:
    rows = [
        {"uid": 1, "text": "red", "labels": [1, 2**63], "price": 1},
        {"uid": 2, "text": "blue", "labels": 7, "price": 0.5},
        {"uid": 3.5, "text": "green", "labels": []},
        {"uid": 4, "text": "green", "labels": [1.0]},
        {"uid": True, "text": "green", "labels": [True]},
    ]
    file = write(tmp_path / "in.jsonl", rows)
    assert good_rows(file) == [("1", "red", ["1", str(2**63)]), ("2", "blue", ["7"])]
    assert [(line, reason) for line, reason, _ in bad_rows(file)] == [
        (3, "uid that is no string"),
        (4, "label that is no string"),
        (5, "uid that is no string"),
    ]
    assert read_by_job(file) == [("1", "red"), ("2", "blue"), ("4", "green")]


@pytest.mark.parametrize(
    ("cell", "reason", "message"),
    [
        (["a", None], "null among the labels", "there is a null among the labels; leave it out"),
        ([{"uri": "a"}], "label that is no string", "the label {'uri': 'a'} is not a string or a whole number"),
        ({"uri": "a"}, "label that is no string", "the label {'uri': 'a'} is not a string or a whole number"),
        ([["a"]], "label that is no string", "the label ['a'] is not a string or a whole number"),
        ([0.5], "label that is no string", "the label 0.5 is not a string or a whole number"),
        ([False], "label that is no string", "the label False is not a string or a whole number"),
        ("['sea', 'ship']", "list written as a string", "write its items with ';' between, without brackets"),
        ('["sea"]', "list written as a string", "write its items with ';' between, without brackets"),
        ("[1, 2]", "list written as a string", "write its items with ';' between, without brackets"),
        ("[]", "list written as a string", "write its items with ';' between, without brackets"),
        ("{'sea', 'ship'}", "list written as a string", "write its items with ';' between, without brackets"),
        (["\ud800"], "label that is not UTF-8", "half a surrogate pair"),
    ],
)
def test_cells_of_labels_that_are_defects(tmp_path: Path, cell: Any, reason: str, message: str) -> None:
    file = write(tmp_path / "in.jsonl", [{"text": "red", "labels": ["a"]}, {"text": "blue", "labels": cell}])
    ((line, found, sentence),) = bad_rows(file, wanted=LABELS)
    assert (line, found) == (2, reason)
    assert message in sentence
    with pytest.raises(DataError, match=r"in.jsonl, line 2: .*--on-bad-row=drop"):
        converted(file, tmp_path / "out")
    done = converted(file, tmp_path / "out", "drop")
    assert done.dropped == {reason: 1}
    assert done.dataset.labels.uids.to_pylist() == ["a"]


def test_a_string_of_labels_is_cut_where_a_separator_is_named(tmp_path: Path) -> None:
    cells = ["sea, deep", "sea;ship", "[to do]", ["x; y"], "", None]
    file = write(tmp_path / "in.jsonl", [{"text": "red", "labels": cell} for cell in cells])
    whole = [labels for _, _, labels in read_by_conversion(file, tmp_path / "out")]
    assert whole == [{"sea, deep"}, {"sea;ship"}, {"[to do]"}, {"x; y"}, set(), set()]
    file = write(tmp_path / "in.jsonl", [{"text": "red", "labels": cell} for cell in cells if cell != "[to do]"])
    cut = [labels for _, _, labels in read_by_conversion(file, tmp_path / "out", separator=";")]
    assert cut == [{"sea, deep"}, {"sea", "ship"}, {"x; y"}, set(), set()]


def test_lines_that_are_no_objects_cost_themselves(tmp_path: Path) -> None:
    lines = ["{}", "", "  ", "[1]", "7", '{"text": "red"', '{"text": "red"} x', "nonsense", '"a"', "[" * 100_000]
    file = write(tmp_path / "in.jsonl", [*lines, {"text": "blue", "extra": "\ud800"}, '{"text": "red", "x": NaN}'])
    assert good_rows(file, wanted=TEXT) == [None, "blue", "red"]
    assert [line for line, _, _ in bad_rows(file, wanted=TEXT)] == [4, 5, 6, 7, 8, 9, 10]
    assert {reason for _, reason, _ in bad_rows(file, wanted=TEXT)} == {"malformed line"}


def test_half_a_surrogate_pair_is_a_defect_of_its_row(tmp_path: Path) -> None:
    file = write(tmp_path / "in.jsonl", [{"text": "\ud83d", "labels": ["a"]}, {"text": "\U0001f71a", "labels": ["a"]}])
    assert good_rows(file, wanted=TEXT) == ["\U0001f71a"]
    assert "half a surrogate pair" in bad_rows(file, wanted=TEXT)[0][2]
    fail(xmc("data", "convert", file, tmp_path / "out"), "line 1: the text has half a surrogate pair")
    listed = xmc("data", "validate", file)
    assert listed.returncode == 2
    assert "line 1: the text has half a surrogate pair" in listed.stdout


def test_numbers_that_do_not_fit(tmp_path: Path) -> None:
    wanted = (
        WantedColumn("relevance", "relevance", required=False),
        WantedColumn("tokens", "tokens", required=False),
        WantedColumn("embedding", "embedding", required=False),
    )
    huge = int("9" * 400)
    rows: list[Any] = [
        {"relevance": [huge]},
        f'{{"relevance": [{huge}], "x": NaN}}',
        {"relevance": ["a"]},
        {"tokens": [2**64 - 1]},
        {"tokens": [0.5]},
        f'{{"embedding": [{huge}], "x": NaN}}',
        {"embedding": 3},
        {"relevance": "1, 0.5", "tokens": [1, None], "embedding": [0, 1.5, None]},
    ]
    file = write(tmp_path / "in.jsonl", rows)
    assert [(line, reason) for line, reason, _ in bad_rows(file, wanted=wanted)] == [
        (1, "bad relevance"),
        (2, "bad relevance"),
        (3, "bad relevance"),
        (4, "bad tokens"),
        (5, "bad tokens"),
        (6, "bad embedding"),
        (7, "embedding that is no list"),
    ]
    assert good_rows(file, wanted=wanted)[-1][:2] == ([1.0, 0.5], [1, None])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"text": "red"}\n]\n', r"is one JSON array; write an object a line instead"),
        ('{\n"text": "red",\n"labels": []\n}\n', r"has no column 'text'.*Not one of its lines is a JSON object"),
        ("", r"has no column 'text'"),
        ('{"title": "red", "tags": []}\n', r"has no column 'text', only title, tags; name the right one"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        open_file(tmp_path / "in.jsonl", TEXT)
    with pytest.raises(DataError, match=r"in\.jsonl"):
        converted(tmp_path / "in.jsonl", tmp_path / "out")
