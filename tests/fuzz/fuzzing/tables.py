"""Tables, arrays and tensors written anew with one thing wrong: their bytes are sound, what they hold is not."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzzing.damage import Random
from fuzzing.values import damaged_value

__all__ = ["other_array", "other_arrow", "other_parquet", "other_tensors"]


def other_parquet(content: bytes, chance: Random) -> bytes:
    """A Parquet file of a changed table."""
    table = _changed(pq.read_table(io.BytesIO(content)), chance)
    written = io.BytesIO()
    options: dict[str, Any] = {"compression": chance.choice(["none", "snappy", "zstd"])}
    pq.write_table(table, written, row_group_size=chance.choice([None, 1, 7]), **options)
    return written.getvalue()


def other_arrow(content: bytes, chance: Random) -> bytes:
    """An Arrow file, or stream, of a changed table."""
    is_file = content.startswith(b"ARROW1")
    opened = pa.ipc.open_file(content) if is_file else pa.ipc.open_stream(content)
    table = _changed(opened.read_all(), chance)
    written = io.BytesIO()
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(written, table.schema) as writer:
        writer.write_table(table, max_chunksize=chance.choice([None, 1, 7]))
    return written.getvalue()


def _changed(table: pa.Table, chance: Random) -> pa.Table:
    """A table with a column of another type or other values, without one, or of other rows."""
    kind = chance.choice(
        ["column", "column", "column", "value", "value", "gone", "again", "renamed", "rows", "metadata"]
    )
    names = table.column_names
    if not names or not table.num_rows:
        return table
    number = chance.randrange(len(names))
    name, column = names[number], table.column(number)
    if kind == "gone":
        return table.drop_columns([name])
    if kind == "again":
        return table.append_column(name, column)
    if kind == "renamed":
        return table.rename_columns([*names[:number], chance.choice(["x", "", "uid", "text"]), *names[number + 1 :]])
    if kind == "metadata":
        return table.replace_schema_metadata(chance.choice([None, {"xmc": "1"}, {b"sha256": b"\xff"}, {"xmc": "{}"}]))
    if kind == "rows":
        rows = [chance.randrange(len(table)) for _ in range(chance.choice([0, 1, len(table) - 1, len(table) + 3]))]
        return table.take(rows)
    values = _odd_column(len(table), chance) if kind == "column" else _odd_values(column, chance)
    return table if values is None else table.set_column(number, name, values)


def _odd_column(rows: int, chance: Random) -> pa.Array:
    small = pa.array(np.arange(rows))
    texts = pa.array([f"t{row}" for row in range(rows)])
    return chance.choice(
        [
            pa.nulls(rows),
            pa.nulls(rows, pa.string()),
            pa.nulls(rows, pa.list_(pa.int32())),
            small,
            small.cast(pa.float64()),
            small.cast(pa.uint8(), safe=False),
            pa.array([True] * rows),
            pa.array([-1] * rows),
            pa.array([2**62] * rows),
            pa.array(["same"] * rows),
            texts,
            texts.cast(pa.large_string()),
            texts.cast(pa.binary()),
            pa.array([b"\xff\xfe"] * rows),
            texts.dictionary_encode(),
            pa.array([[row, -1, 10**9] for row in range(rows)]),
            pa.array([[f"t{row}"] for row in range(rows)]),
            pa.array([[[1.0]]] * rows),
            pa.array([{"a": row} for row in range(rows)]),
            pa.array([[float("nan")] * 3] * rows, pa.list_(pa.float32(), 3)),
            pa.array([[1.0, None]] * rows, pa.list_(pa.float32(), 2)),
            pa.array([0] * rows, pa.timestamp("us")),
            pa.array([0] * rows, pa.decimal128(5, 1)),
        ]
    )


def _odd_values(column: pa.ChunkedArray, chance: Random) -> pa.Array | None:
    """The column with some values replaced by others of its type; None where there is nothing of it."""
    values = column.to_pylist()
    for _ in range(chance.choice([1, 1, 3, len(values)])):
        row = chance.randrange(len(values))
        values[row] = _odd_of(values[row], chance)
    try:
        return pa.array(values, column.type)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return None


def _odd_of(value: Any, chance: Random) -> Any:
    if isinstance(value, list) and value and chance.random() < 0.7:
        return [*value[:-1], _odd_of(value[-1], chance)]
    odd: list[Any] = [None]
    if isinstance(value, bool):
        odd += [not value]
    elif isinstance(value, int):
        odd += [-1, value + 1, -value, 2**31 - 1, 2**62, 0]
    elif isinstance(value, float):
        odd += [float("nan"), float("inf"), -value, 0.0, 1e38]
    elif isinstance(value, str):
        odd += ["", " ", "\x00", value + "x", "a" * 5000, "\u202e", "NaN", "red", "-"]
    elif isinstance(value, list):
        odd += [[], value * 2, value[:-1], [None]]
    elif isinstance(value, bytes):
        odd += [b"", b"\xff", value * 2]
    return chance.choice(odd)


def other_array(content: bytes, chance: Random) -> bytes:
    """A file of numpy with another type, shape or other values, or with a description that says so."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    kind = chance.choice(["shape", "type", "value", "header"])
    if kind == "header":
        return _other_header(content, chance)
    if kind == "shape":
        shapes: list[Any] = [(-1,), (array.size, 1), (1, 1, -1), (-1, 1)]
        array = array.reshape(chance.choice(shapes)) if array.size else array
        array = chance.choice([array, array[:0], array[..., :1]])
    elif kind == "type":
        array = array.astype(
            chance.choice(["<f8", ">f4", "<i8", "<i4", "u1", "?", "<f2", "<U8", "S4", "<c8", "<M8[s]"])
        )
    elif array.size and array.dtype.kind in "fiu":
        odd = [-1, 2**31 - 1, 0] if array.dtype.kind in "iu" else [float("nan"), float("inf"), -1e38]
        array = array.copy()
        array.reshape(-1)[chance.randrange(array.size)] = np.array(chance.choice(odd)).astype(array.dtype)
    written = io.BytesIO()
    np.save(written, array)
    return written.getvalue()


def _other_header(content: bytes, chance: Random) -> bytes:
    (length,) = struct.unpack("<H", content[8:10])
    header = content[10 : 10 + length].decode("latin-1")
    old, new = chance.choice(
        [
            ("'descr': '<", "'descr': '>"),
            ("'descr': '", "'descr': '|O"),
            ("'shape': (", f"'shape': ({chance.choice([10**20, -1, 2**31, 2**62, 0])}, "),
            ("'shape': (", "'shape': (1.5,"),
            ("False", chance.choice(["True", "None", "__import__('os')", "[" * 300, "\x00", "'", "("])),
            ("{", chance.choice(["{'descr': 1, ", "", "{'x': (", "[{", "\\", "\n\n", "0o9"])),
            ("}", chance.choice(["", "}}", ", 'x': 1}", '"""', "\t\x0c"])),
        ]
    )
    header = header.replace(old, new, 1)
    described = header.encode("latin-1", "replace")
    return content[:8] + struct.pack("<H", len(described)) + described + content[10 + length :]


def other_tensors(content: bytes, chance: Random) -> bytes:
    """A safetensors file whose description says otherwise: sound in itself with other types and shapes, or not sound."""
    (length,) = struct.unpack("<Q", content[:8])
    described, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in described if name != "__metadata__"]
    name = chance.choice(names)
    entry = described[name]
    start, end = entry["data_offsets"]
    kind = chance.choice(["type", "shape", "gone", "renamed", "numbers", "any", "any", "exchanged", "length"])
    if kind == "type":
        widths = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1, "I16": 2}
        entry["dtype"] = chance.choice(list(widths))
        width = widths[entry["dtype"]]
        entry["shape"] = chance.choice([[(end - start) // width], [1, (end - start) // width], entry["shape"]])
    elif kind == "shape":
        entry["shape"] = chance.choice(
            [
                entry["shape"][::-1],
                [1, *entry["shape"]],
                [],
                [int(np.prod(entry["shape"]))],
                [0],
                [-1, 1],
                [10**18, 10**18],
            ]
        )
    elif kind == "gone":
        del described[name]
    elif kind == "renamed":
        described[chance.choice([name + "x", "", "weight", "served", "normalize"])] = described.pop(name)
    elif kind == "numbers" and end > start:
        number = chance.choice([b"\xff" * 4, b"\x00\x00\x80\x7f", b"\x00" * 4, b"\x00\x00\x80\xff"])
        filled = (number * ((end - start) // 4 + 1))[: end - start]
        data = data[:start] + filled + data[end:]
    elif kind == "exchanged" and len(names) > 1:
        other = chance.choice(names)
        described[name], described[other] = described[other], described[name]
    elif kind == "any":
        described = damaged_value(described, chance)
    header = json.dumps(described).encode("utf-8", "surrogatepass")
    size = len(header) if kind != "length" else chance.choice([0, 2**63, len(content), len(header) - 1, 10**8 + 1])
    return struct.pack("<Q", size) + header + data
