"""Parquet and Arrow: the types of columns are the file's; what does not fit costs its row, or is refused with the column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from record_files import bad_rows, converted, good_rows, read_by_conversion, read_by_job

from xmc.data.files import WantedColumn, open_file
from xmc.errors import DataError

LABELS = (WantedColumn("labels", "labels"),)
WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    ".parquet": lambda table, path: pq.write_table(table, path, row_group_size=2),
    ".arrow": lambda table, path: feather.write_feather(table, path, chunksize=2),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    def written(**columns: Any) -> Path:
        path = tmp_path / f"in{request.param}"
        WRITERS[request.param](pa.table(columns), path)
        return path

    return written


def not_utf8(values: list[bytes]) -> pa.Array:
    return pa.array(values, pa.binary()).view(pa.string())


TYPES = [
    pa.list_(pa.string()),
    pa.large_list(pa.large_string()),
    pa.list_(pa.dictionary(pa.int32(), pa.string())),
    pa.list_(pa.int64()),
    pa.list_(pa.int8()),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_lists_of_every_type(write: Callable[..., Path], kind: pa.DataType) -> None:
    values = [["1", "2"], [], None, ["3"], ["2", "1", "4"]]
    numbers = [None if labels is None else [int(label) for label in labels] for labels in values]
    lists = pa.array(numbers if pa.types.is_integer(kind.value_type) else values, kind)
    file = write(labels=lists, text=list("abcde"))
    assert good_rows(file, wanted=LABELS) == [["1", "2"], [], [], ["3"], ["2", "1", "4"]]


def test_strings_and_whole_numbers(write: Callable[..., Path]) -> None:
    file = write(
        uid=pa.array([1, 2, 2**63], pa.uint64()),
        text=pa.array(["2020-01-01", "1.0", None]).dictionary_encode(),
        labels=pa.array([7, None, 9], pa.int32()),
    )
    assert good_rows(file) == [("1", "2020-01-01", ["7"]), ("2", "1.0", []), (str(2**63), None, ["9"])]
    assert read_by_job(file) == [("1", "2020-01-01"), ("2", "1.0")]


def test_a_single_string_is_one_label_unless_a_separator_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    cells = ["sea, deep", "sea;ship", "", None, " x "]
    file = write(text=list("abcde"), labels=pa.array(cells))
    whole = [labels for _, _, labels in read_by_conversion(file, tmp_path / "out")]
    assert whole == [{"sea, deep"}, {"sea;ship"}, set(), set(), {" x "}]
    cut = [labels for _, _, labels in read_by_conversion(file, tmp_path / "out", separator=",")]
    assert cut == [{"sea", "deep"}, {"sea;ship"}, set(), set(), {"x"}]


def test_cells_of_labels_that_are_defects(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(text=list("abc"), labels=pa.array(["sea", "['sea', 'ship']", "[1, 2]"]))
    assert [(line, reason) for line, reason, _ in bad_rows(file, wanted=LABELS)] == [
        (2, "list written as a string"),
        (3, "list written as a string"),
    ]
    with pytest.raises(DataError, match=r"row 2: \"\['sea', 'ship'\]\" is a list that was written as a string; write"):
        converted(file, tmp_path / "out")
    file = write(text=list("abc"), labels=[["sea", None], ["sea"], [None]])
    assert [(line, reason) for line, reason, _ in bad_rows(file, wanted=LABELS)] == [
        (1, "null among the labels"),
        (3, "null among the labels"),
    ]
    assert converted(file, tmp_path / "out", "drop").dropped == {"null among the labels": 2}
    with pytest.raises(DataError, match="row 1: there is a null among the labels; leave it out"):
        converted(file, tmp_path / "other")


@pytest.mark.parametrize(
    ("column", "values", "needed"),
    [
        ("labels", [[{"uri": "a"}]], "lists of strings or whole numbers are needed"),
        ("labels", [{"uri": "a"}], "lists of strings or whole numbers are needed"),
        ("labels", [[0.5]], "lists of strings or whole numbers are needed"),
        ("labels", [[["a"]]], "lists of strings or whole numbers are needed"),
        ("labels", [b"a"], "lists of strings or whole numbers are needed"),
        ("text", [1], "strings are needed"),
        ("text", [np.datetime64("2020-01-01", "s")], "strings are needed"),
        ("text", [["a"]], "strings are needed"),
        ("uid", [1.0], "strings or whole numbers are needed"),
        ("uid", [True], "strings or whole numbers are needed"),
    ],
)
def test_columns_of_another_type_are_refused(
    write: Callable[..., Path], tmp_path: Path, column: str, values: list[Any], needed: str
) -> None:
    columns: dict[str, Any] = {"uid": ["1"], "text": ["red"], "labels": [["a"]]}
    file = write(**columns | {column: pa.array(values)})
    with pytest.raises(DataError, match=f"the column '{column}' is of type .*; {needed}. Convert it, or name another"):
        good_rows(file)
    with pytest.raises(DataError, match=needed):
        converted(file, tmp_path / "out")


def test_a_text_that_is_not_utf8_costs_its_row(write: Callable[..., Path]) -> None:
    file = write(
        uid=["1", "2", "3"],
        text=not_utf8([b"red", b"bl\xffue", b"green"]),
        labels=pa.ListArray.from_arrays([0, 1, 2, 4], not_utf8([b"a", b"a", b"a", b"\xff"])),
    )
    assert [row[0] for row in good_rows(file)] == ["1"]
    assert [(line, reason) for line, reason, _ in bad_rows(file)] == [
        (2, "text that is not UTF-8"),
        (3, "label that is not UTF-8"),
    ]
    assert read_by_job(file) == [("1", "red"), ("3", "green")]


def test_a_number_that_does_not_fit_costs_its_row(write: Callable[..., Path]) -> None:
    wanted = (WantedColumn("relevance", "relevance"), WantedColumn("tokens", "tokens"))
    file = write(
        relevance=[["1", "0.5"], ["high"], ["2"], None],
        tokens=pa.array([[1, None], [2], [2**64 - 1], [3]], pa.list_(pa.uint64())),
    )
    assert good_rows(file, wanted=wanted) == [([1.0, 0.5], [1, None]), (None, [3])]
    assert [reason for _, reason, _ in bad_rows(file, wanted=wanted)] == ["bad relevance", "bad tokens"]
    file = write(relevance=["1,0.5", "2", "", "?"], tokens=[[1]] * 4)
    assert good_rows(file, wanted=wanted) == [([1.0, 0.5], [1]), ([2.0], [1]), (None, [1])]


def test_columns_that_are_absent_or_there_twice(write: Callable[..., Path], tmp_path: Path) -> None:
    file = write(id=["1"], text=["red"], labels=[["a"]])
    with pytest.raises(DataError, match="has no column 'idd', only id, text, labels; name the right one"):
        converted(file, tmp_path / "out", uid="idd")
    with pytest.raises(DataError, match="has no column 'rel', only id, text, labels; name the right one"):
        converted(file, tmp_path / "out", relevance="rel")
    assert [uid for uid, _, _ in read_by_conversion(file, tmp_path / "out")] == ["0"]
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["text", "text", "labels"])
    WRITERS[file.suffix](twice, file)
    with pytest.raises(DataError, match="has the column 'text' more than once; rename one"):
        converted(file, tmp_path / "out")


def test_damaged_arrow_files_are_refused_where_their_offsets_point_outside(tmp_path: Path) -> None:
    lists = pa.array([["sea", "ship"], ["boat"]] * 50)
    table = pa.table({"text": pa.array(["a text"] * 100), "labels": lists})
    feather.write_feather(table, tmp_path / "in.arrow", compression="uncompressed")
    content = (tmp_path / "in.arrow").read_bytes()
    for array, width in ((lists.offsets, 4), (lists.values, 4), (table["text"].chunk(0), 4)):
        buffers = [buffer.to_pybytes() for buffer in array.buffers() if buffer is not None and buffer.size > 100]
        place = content.index(buffers[0][: 8 * width])
        damaged = bytearray(content)
        damaged[place + 4 * width : place + 5 * width] = b"\xff\xff\xff\x7f"
        (tmp_path / "in.arrow").write_bytes(damaged)
        with pytest.raises(DataError, match=r"in.arrow cannot be read past row 0"):
            good_rows(tmp_path / "in.arrow", wanted=(WantedColumn("text", "text"), *LABELS))


def test_empty_tables(write: Callable[..., Path]) -> None:
    file = write(text=pa.array([], pa.string()), labels=pa.array([], pa.list_(pa.string())))
    assert good_rows(file, wanted=LABELS) == []
    assert open_file(file, LABELS).count() == 0
    assert read_by_job(file) == []
