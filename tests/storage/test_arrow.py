"""Tables in Arrow and Parquet files are validated in full before anything touches them, and say no more than they hold."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xmc.errors import DataError, StoreError
from xmc.storage.arrow import column_names, read_batches, read_columns, write_arrow_file
from xmc.storage.soundness import require_possible, require_sound_batch

WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "in.arrow": write_arrow_file,
    "in.parquet": lambda table, file: pq.write_table(table, file, row_group_size=10),
}
TABLE = pa.table(
    {
        "uid": [f"q{row}" for row in range(30)],
        "labels": [[f"l{row % 3}"] * (row % 4) for row in range(30)],
        "kind": pa.array(["a", "b", None] * 10).dictionary_encode(),
        "nested": [{"words": ["x"] * (row % 2), "number": row} for row in range(30)],
    }
)


@pytest.fixture(params=WRITERS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    WRITERS[request.param](TABLE, tmp_path / request.param)
    return tmp_path / request.param


def test_what_was_written_is_read(file: Path) -> None:
    assert read_columns(file).to_pylist() == TABLE.to_pylist()
    assert read_columns(file, ["kind", "uid"], mapped=False).to_pylist() == TABLE.select(["kind", "uid"]).to_pylist()


def test_errors_are_of_the_kind_and_the_words_that_are_asked_for(file: Path) -> None:
    with pytest.raises(DataError, match=r"^The table cannot be read: .*colour.*\. Make it again\.$"):
        read_columns(file, ["colour"], kind=DataError, what="The table cannot be read", remedy="Make it again.")
    with pytest.raises(StoreError, match="gone cannot be read: "):
        read_columns(file.with_stem("gone"), ["uid"], what="gone cannot be read")


def test_batches_of_a_parquet_file_are_all_of_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    WRITERS[file.name](TABLE, file)
    batches = list(read_batches(file, 7, ["labels", "uid"]))
    assert max(map(len, batches)) <= 7
    assert pa.Table.from_batches(batches).to_pylist() == TABLE.select(["labels", "uid"]).to_pylist()
    assert column_names(file) == TABLE.column_names


def test_rows_that_a_parquet_file_says_and_has_not_are_missed(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table({"number": np.arange(100_000)}), file, row_group_size=50_000, version="1.0")
    content = file.read_bytes()
    said = bytes([0xC0, 0x9A, 0x0C])  # 100,000 as a zigzag varint, the number of all rows
    assert content.count(said) == 1
    file.write_bytes(content.replace(said, bytes([0xC2, 0x9A, 0x0C])))
    with pytest.raises(StoreError, match="2 row groups have 100,000 rows, but it says 100,001"):
        read_columns(file)
    of_group = bytes([0xA0, 0x8D, 0x06])  # 50,000
    file.write_bytes(content.replace(of_group, bytes([0x80, 0x8D, 0x06])).replace(said, bytes([0xE0, 0x99, 0x0C])))
    with pytest.raises(StoreError, match="cannot be read"):
        list(read_batches(file, 1000))


@pytest.mark.parametrize("rows", [-1, 10**15])
def test_rows_that_no_file_of_this_size_holds(rows: int) -> None:
    require_possible(10_000_000, 100)
    with pytest.raises(pa.ArrowInvalid, match="which 100 bytes cannot hold"):
        require_possible(rows, 100)


def not_utf8() -> pa.Array:
    return pa.array([b"\xff", b"sound", None], pa.binary()).view(pa.string())


def offsets_out_of_order() -> pa.Array:
    offsets = pa.py_buffer(np.array([0, 1, 5000, 3], np.int32).tobytes())
    return pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])


NESTED: dict[str, Callable[[pa.Array], pa.Array]] = {
    "string": lambda values: values,
    "list": lambda values: pa.ListArray.from_arrays([0, 1, 2, 3], values),
    "large list": lambda values: pa.LargeListArray.from_arrays([0, 1, 2, 3], values),
    "list of one": lambda values: pa.FixedSizeListArray.from_arrays(values, 1),
    "list view": lambda values: pa.ListViewArray.from_arrays([0, 1, 2], [1, 1, 1], values),
    "struct": lambda values: pa.StructArray.from_arrays([values], ["word"]),
    "map": lambda values: pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "c"]), values),
    "dictionary": lambda values: pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), values),
    "list of dictionary": lambda values: pa.ListArray.from_arrays(
        [0, 1, 2, 3], pa.DictionaryArray.from_arrays(pa.array([2, 1, 0]), values)
    ),
}


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
def test_texts_that_are_not_utf8_are_sound_and_offsets_out_of_order_are_not(
    nest: Callable[[pa.Array], pa.Array],
) -> None:
    require_sound_batch(pa.record_batch([nest(not_utf8())], names=["column"]))
    with pytest.raises(pa.ArrowInvalid, match="out of bounds"):
        require_sound_batch(pa.record_batch([nest(offsets_out_of_order())], names=["column"]))


def test_an_index_out_of_its_dictionary_is_not_sound() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 77]), not_utf8(), safe=False)
    with pytest.raises(pa.ArrowInvalid, match="out of bounds"):
        require_sound_batch(pa.record_batch([column], names=["column"]))


PROGRAM = """
import random, sys
from pathlib import Path
from xmc.errors import XMCError
from xmc.storage.arrow import read_batches, read_columns

file, content = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
refused = 0
for seed in range(int(sys.argv[3])):
    chance = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4])):
        start = chance.randrange(len(damaged))
        damaged[start : start + chance.choice([0, 1, 8])] = chance.choice([chance.randbytes(1), b"", b"\\xff" * 8, b"\\x7f"])
    file.write_bytes(damaged)
    try:
        table = read_columns(file, mapped=seed % 2 == 0)
        table.to_pylist()
        if file.suffix == ".parquet":
            assert sum(map(len, read_batches(file, 7))) == len(table)
    except XMCError:
        refused += 1
print(refused)
"""


def test_damaged_files_end_in_errors_of_their_kind(file: Path, tmp_path: Path) -> None:
    """In a process of its own: what is not refused may end it."""
    command = [sys.executable, "-c", PROGRAM, tmp_path / f"damaged{file.suffix}", file, "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert int(done.stdout) > 100


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    content = file.read_bytes()
    for length in random.Random(0).sample(range(len(content)), 50):
        file.write_bytes(content[:length])
        with pytest.raises(StoreError, match="cannot be read: "):
            read_columns(file)


def test_row_groups_without_rows(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    with pq.ParquetWriter(file, TABLE.schema) as writer:
        for table in (TABLE.slice(0, 0), TABLE, TABLE.slice(0, 0)):
            writer.write_table(table)
    assert read_columns(file).to_pylist() == TABLE.to_pylist()
    assert sum(map(len, read_batches(file, 7))) == len(TABLE)


def test_files_one_behind_the_other_are_refused(file: Path) -> None:
    file.write_bytes(2 * file.read_bytes())
    with pytest.raises(StoreError, match=r"two files, one behind the other|\d+ bytes that are of none"):
        read_columns(file)
