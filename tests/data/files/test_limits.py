"""Lines without end, files that are none, and nesting without bottom are refused, in little memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import fail, xmc
from record_files import good_rows, read_by_job

from xmc.batch import Columns
from xmc.data.files import TextForm, WantedColumn, open_file
from xmc.data.files.addresses import list_files
from xmc.data.readers import TabularColumns, open_source
from xmc.errors import ConfigError, DataError

TEXT = (WantedColumn("text", "text"),)
PROGRAM = """
import resource, sys
from pathlib import Path
from xmc.data.files import WantedColumn, open_file
from xmc.data.readers import open_source
from xmc.errors import XMCError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)
file = Path(sys.argv[1])
for reading in (lambda: open_file(file, [WantedColumn("text", "text")]).count(), lambda: open_source(file.parent)):
    try:
        reading()
        print("read")
    except XMCError as error:
        print(error)
"""


@pytest.mark.parametrize("start", [b'{"text": "', b"[", b'text\n"'])
def test_a_packed_line_of_a_gigabyte_is_refused_in_little_memory(tmp_path: Path, start: bytes) -> None:
    file = tmp_path / ("train.csv.gz" if start.startswith(b"text") else "train.jsonl.gz")
    file.write_bytes(gzip.compress(start) + 64 * gzip.compress(start[-1:] * (1 << 24)))
    done = subprocess.run([sys.executable, "-c", PROGRAM, file], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert "the line is longer than 16,777,216 characters" in done.stdout.splitlines()[0]
    assert "--max-line 33554432 allows twice as many" in done.stdout


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_longer_lines_are_read_where_they_are_allowed(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"train{ending}"
    long = "x" * 5000
    content = f"text,labels\n{long},a\n" if ending == ".csv" else f'{{"text": "{long}", "labels": ["a"]}}\n'
    file.write_text(content)
    assert good_rows(file, TextForm(max_line=5030), TEXT) == [long]
    assert read_by_job(file, Columns(max_line=5030)) == [("0", long)]
    with pytest.raises(
        DataError, match=r"longer than 4,999 characters; .* --max-line 9998 allows twice as many"
    ) as raised:
        good_rows(file, TextForm(max_line=4999), TEXT)
    assert raised.value.again == ("--max-line", "9998")
    with pytest.raises(DataError, match=r"--max-line"):
        list(open_source(file, None, TabularColumns(max_line=100)).labels())
    fail(xmc("data", "convert", file, tmp_path / "out", "--max-line", "4999"), "--max-line 9998 allows twice as many")
    with pytest.raises(ConfigError, match="A line has at least one character"):
        TextForm(max_line=0)


def test_lines_of_just_the_length_that_is_allowed(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", ""):
        file = tmp_path / "in.csv"
        file.write_bytes(f"text\n12345{end}".encode())
        assert good_rows(file, TextForm(max_line=5), TEXT) == ["12345"]
        with pytest.raises(DataError, match="longer than 4 characters"):
            good_rows(file, TextForm(max_line=4), TEXT)


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"zero.csv cannot be read: it is a character device, and not a file"):
        open_file(folder / "zero.csv", TEXT)
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe.csv cannot be read: it is a pipe, and not a file"):
        open_file(folder / "pipe.csv", TEXT)
    (folder / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv cannot be read: it is a folder, and not a file"):
        open_file(folder / "folder.csv", TEXT)


@pytest.mark.parametrize("other", ["pipe", "device", "link to nothing"])
def test_input_that_is_no_file_is_not_left_out_of_a_folder(tmp_path: Path, other: str) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    (tmp_path / "_b.csv").symlink_to("nowhere")
    (tmp_path / "c.txt").symlink_to("nowhere")
    assert [file.name for file in list_files(str(tmp_path))] == ["a.csv"]
    if other == "pipe":
        os.mkfifo(tmp_path / "b.csv")
    else:
        (tmp_path / "b.csv").symlink_to("/dev/zero" if other == "device" else "nowhere")
    for address in (tmp_path, f"file://{tmp_path}", tmp_path / "*.csv"):
        with pytest.raises(DataError, match=r"b\.csv is a device, a pipe or a link to nothing"):
            list_files(str(address))


@pytest.mark.parametrize(
    "cell",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "-" + "9" * 400, "1e999999", '"\\ud800"', '"\\ud83d"'],
    ids=["lists", "objects", "digits", "number", "exponent", "surrogate", "half an emoji"],
)
def test_json_that_is_too_deep_or_too_large_costs_its_row(tmp_path: Path, cell: str) -> None:
    file = tmp_path / "in.jsonl"
    close = {"[": "]" * 100_000, "{": "1" + "}" * 100_000}.get(cell[0], "")
    file.write_text(f'{{"uid": "1", "text": {cell}{close}}}\n{{"uid": "2", "text": "sound"}}\n')
    assert read_by_job(file) == [("2", "sound")]
    assert open_file(file, TEXT).count() == 2


def test_a_name_of_a_column_that_is_no_text_is_refused_where_it_would_be_written(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "a", "\\ud800": 1}\n')
    assert good_rows(file, wanted=TEXT) == ["a"]
    with pytest.raises(DataError, match="of a column has half a surrogate pair"):
        open_file(file, TEXT).every_name()
