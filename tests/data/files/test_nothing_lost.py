"""What goes into a reader of records comes out of it, as rows or as rows that cannot be used: nothing is swallowed."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_files import bad_rows, good_rows, read_by_job

from xmc.data.files import LINE, REASON, TextForm, WantedColumn, open_file
from xmc.data.label_rows import LabelRows
from xmc.errors import DataError

COLUMNS = (WantedColumn("uid", "uid"), WantedColumn("text", "text"))
ROWS = 100


def with_open_quote(row: int, end: str = "\n") -> bytes:
    """A CSV file of 100 rows, of which one opens a quote that is not closed."""
    lines = [f"{number},{chr(34) if number == row else ''}text {number}" for number in range(1, ROWS + 1)]
    return "".join(line + end for line in ["uid,text", *lines]).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("row", [1, 5, 99, 100])
def test_a_quote_that_never_closes_costs_one_row_of_a_hundred(tmp_path: Path, row: int, end: str) -> None:
    file = tmp_path / "in.csv"
    file.write_bytes(with_open_quote(row, end))
    ((line, reason, message),) = bad_rows(file, wanted=COLUMNS)
    assert (line, reason) == (row + 1, "malformed line")
    assert "opens a quote that is not closed" in message
    good = good_rows(file, wanted=COLUMNS)
    assert good == [(str(number), f"text {number}") for number in range(1, ROWS + 1) if number != row]
    for rows_per_part in (1, 7, 1000):
        assert open_file(file, COLUMNS).count() == ROWS
        assert read_by_job(file, rows_per_part=rows_per_part) == good
    with pytest.raises(DataError, match=rf"line {row + 1}: the record opens a quote"):
        open_file(file, COLUMNS).count(strict=True)
    with pytest.raises(DataError, match=rf"line {row + 1}: the record opens a quote"):
        open_file(file, COLUMNS).columns()
    with pytest.raises(DataError, match="opens a quote"):
        LabelRows.read(file, TextForm())


def test_every_line_of_a_damaged_file_is_in_one_record(tmp_path: Path) -> None:
    """A good row has as many line ends in its cells as it took lines; a bad one took its own line only."""
    file = tmp_path / "in.csv"
    for seed in range(150):
        chance = random.Random(seed)
        content = bytearray("uid,text\n" + "".join(f'{row},"a {row}"\n' for row in range(30)), "utf-8")
        for _ in range(chance.randint(1, 6)):
            content[(place := chance.randrange(9, len(content))) : place] = chance.choice(
                [b'"', b"\n", b",", b'""', b"x"]
            )
        file.write_bytes(content)
        lines = content.decode().split("\n")
        rows = [row for batch in open_file(file, COLUMNS).batches() for row in batch.to_pylist()]
        ends = [row[LINE] for row in rows[1:]] + [len(lines)]
        for row, behind in zip(rows, ends, strict=True):
            taken = lines[row[LINE] - 1 : behind - 1]
            while taken and not taken[-1].strip() and len(taken) > 1:
                taken.pop()  # blank lines are no records
            if row[REASON] is None:
                assert (row["uid"] + row["text"]).count("\n") == len(taken) - 1, (seed, row)
            else:
                assert len(taken) == 1, (seed, row)


def arrow_stream(rows: int = 30, mark: bool = True) -> bytes:
    table = pa.table({"uid": [str(row) for row in range(rows)], "text": [f"text {row}" for row in range(rows)]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches(7):
            writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content if mark else content[:-8]


def test_a_stream_of_arrow_has_all_its_batches_or_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.arrow"
    file.write_bytes(arrow_stream())
    assert len(read_by_job(file)) == len(good_rows(file, wanted=COLUMNS)) == open_file(file, COLUMNS).count() == 30
    for content, message in {
        arrow_stream(mark=False): "without the mark of its end",
        2 * arrow_stream(): "bytes follow",
        arrow_stream() + b"\n": "bytes follow",
    }.items():
        file.write_bytes(content)
        for reading in (lambda: open_file(file, COLUMNS).count(), lambda: good_rows(file, wanted=COLUMNS)):
            with pytest.raises(DataError, match=message):
                reading()


def arrow_file(path: Path) -> None:
    table = pa.table({"uid": [str(row) for row in range(30)], "text": [f"text {row}" for row in range(30)]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def test_an_arrow_file_whose_end_names_fewer_batches_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "in.arrow"
    arrow_file(file)
    content = bytearray(file.read_bytes())
    footer = int.from_bytes(content[-10:-6], "little")
    start = len(content) - 10 - footer
    five = [place for place in range(start, len(content) - 10, 4) if content[place : place + 4] == b"\x05\0\0\0"]
    fewer = 0
    for place in five:  # the number of batches is one of them
        file.write_bytes(bytes(content[:place]) + b"\x04" + bytes(content[place + 1 :]))
        try:
            if pa.ipc.open_file(pa.OSFile(str(file))).num_record_batches != 4:
                continue
        except pa.ArrowInvalid:
            continue
        fewer += 1
        for reading in (lambda: open_file(file, COLUMNS).count(), lambda: good_rows(file, wanted=COLUMNS)):
            with pytest.raises(DataError, match="its end names 4 batches, but there are 5"):
                reading()
    assert fewer == 1


@pytest.mark.parametrize("name", ["in.arrow", "in.parquet"])
def test_two_files_one_behind_the_other_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name == "in.arrow":
        arrow_file(file)
    else:
        pq.write_table(pa.table({"uid": ["1", "2"], "text": ["a", "b"]}), file, row_group_size=1)
    assert open_file(file, COLUMNS).count() == len(good_rows(file, wanted=COLUMNS))
    file.write_bytes(2 * file.read_bytes())
    with pytest.raises(DataError, match=r"one behind the other|bytes that are of none"):
        open_file(file, COLUMNS).count()


def lines_of(name: str) -> bytes:
    if ".csv" in name:
        return b"uid,text\n" + b"".join(b"%d,text %d\n" % (row, row) for row in range(50))
    return b"".join(json.dumps({"uid": str(row), "text": f"text {row}"}).encode() + b"\n" for row in range(50))


PACKINGS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_packed_files_of_several_members_and_with_garbage_behind(tmp_path: Path, ending: str, packing: str) -> None:
    file = tmp_path / f"in{ending}{packing}"
    content, pack = lines_of(ending), PACKINGS[packing]
    file.write_bytes(pack(content[:300]) + pack(content[300:301]) + pack(content[301:]))
    assert len(good_rows(file, wanted=COLUMNS)) == open_file(file, COLUMNS).count() == 50
    for damaged in (pack(content) + b"garbage", pack(content)[:-3], pack(content)[:-8] + b"\0" * 8):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            open_file(file, COLUMNS).count()
        with pytest.raises(DataError, match="cannot be read"):
            good_rows(file, wanted=COLUMNS)


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        (b'{"uid": 1, "text": "a"}{"uid": 2, "text": "b"}\n{"uid": 3, "text": "c"}\n', 1, 1),
        (b'{"uid": 1, "text": "a"}\n{"uid": 2, "te', 1, 1),
        (b'{"uid": 1,\n "text": "a"}\n{"uid": 3, "text": "c"}\n', 1, 2),
        (b'{"uid": 1, "text": "a\0"}\n\0\n{"uid": 3, "text": "\\u0000"}\n', 1, 2),
        (b'\x1e{"uid": 1, "text": "a"}\n{"uid": 3, "text": "c"}', 1, 1),
        (b'{"uid": 1, "text": "a"}\r{"uid": 2, "text": "b"}\r\n\r\n{"uid": 3, "text": "c"}', 3, 0),
    ],
    ids=["two in a line", "cut", "over two lines", "NUL", "JSON sequence", "line ends"],
)
def test_json_lines_that_are_not_an_object_a_line(tmp_path: Path, content: bytes, good: int, bad: int) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(content)
    assert len(good_rows(file, wanted=COLUMNS)) == good
    assert len(bad_rows(file, wanted=COLUMNS)) == bad
    assert open_file(file, COLUMNS).count() == good + bad


@pytest.mark.parametrize("last", ["c", "é"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_without_its_last_byte(tmp_path: Path, encoding: str, last: str) -> None:
    file = tmp_path / "in.csv"
    content = f"uid,text\n1,a\n2,b{last}".encode(encoding)
    form = TextForm(encoding)
    file.write_bytes(content)
    assert good_rows(file, form, COLUMNS) == [("1", "a"), ("2", f"b{last}")]
    file.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"in\.csv.*(cannot be read past line|line 3: )"):
        open_file(file, COLUMNS, form).columns()
