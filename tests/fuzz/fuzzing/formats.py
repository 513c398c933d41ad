"""A file damaged as what it is: its structure where the format is known, its bytes else, what is packed and what packs it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from fuzzing.damage import Random, damaged, replaced_number
from fuzzing.tables import other_array, other_arrow, other_parquet, other_tensors
from fuzzing.values import damaged_json

__all__ = ["damaged_file"]

CELLS = [b"", b'"', b'""', b'"a', b'a"b', b'"a""b"', b"a\tb", b";", b"\x00", b"\xff", b"NaN", b"1e999", b" ", b'"x\ny"']
CELLS += [b"=1+1", b"\r", b"'", b"[1,2]", b'["a"]', b"{}", b"-1", b"9" * 30, b"x" * 5000, "\u2028".encode(), b"\\"]


def damaged_file(name: str, content: bytes, chance: Random) -> bytes:
    """The content of a file of some name with a change that its format makes likely to matter."""
    ending = name.rpartition(".")[2].lower()
    structured = STRUCTURED.get(ending)
    if structured is None or chance.random() < 0.35:
        return damaged(content, chance)
    try:
        changed = structured(name, content, chance)
    except Exception:  # of a file that was damaged before, or that the writer of its format does not take
        changed = None
    return damaged(content, chance) if changed is None else changed


def _json(name: str, content: bytes, chance: Random) -> bytes | None:
    return damaged_json(content, chance)


def _cells(name: str, content: bytes, chance: Random) -> bytes:
    """A cell, or the mark between two, changes; or a line is there twice, or not at all."""
    mark = b"\t" if b"tsv" in name.encode() or b"\t" in content[:200] else b","
    lines = content.splitlines(keepends=True)
    row = chance.randrange(len(lines))
    kind = chance.choice(["cell", "cell", "cell", "more", "fewer", "twice", "gone", "end", "joined", "quote"])
    cells = lines[row].rstrip(b"\r\n").split(mark)
    end = lines[row][len(lines[row].rstrip(b"\r\n")) :]
    column = chance.randrange(len(cells))
    if kind == "cell":
        cells[column] = chance.choice(CELLS)
    elif kind == "more":
        cells.insert(column, chance.choice(CELLS))
    elif kind == "fewer":
        del cells[column]
    elif kind == "quote":
        cells[column] = b'"' + cells[column]
    elif kind == "end":
        end = chance.choice([b"", b"\r", b"\n\n", b"\r\n", b"\x00\n", "\u2028".encode(), b"\x0b"])
    elif kind == "twice":
        lines.insert(row, lines[row])
    if kind == "gone":
        del lines[row]
    elif kind == "joined" and row + 1 < len(lines):
        lines[row] = lines[row].rstrip(b"\r\n")
    elif kind != "twice":
        lines[row] = mark.join(cells) + end
    return b"".join(lines)


def _arrow(name: str, content: bytes, chance: Random) -> bytes:
    """A table that says otherwise, or a number of what describes it: at the beginning, at the end, or of a batch."""
    if chance.random() < 0.5:
        return other_arrow(content, chance)
    for _ in range(chance.choice([1, 1, 2, 3])):
        start, end = chance.choice([(0, 1200), (max(0, len(content) - 1200) // 8 * 8, len(content)), (0, len(content))])
        content = replaced_number(content, chance, start, end)
    return content


def _parquet(name: str, content: bytes, chance: Random) -> bytes:
    """A table that says otherwise, or bytes of the description at the end, whose numbers are of any length."""
    if chance.random() < 0.5:
        return other_parquet(content, chance)
    length = min(int.from_bytes(content[-8:-4], "little"), len(content) - 8)
    start = len(content) - 8 - length
    described = bytearray(content[start:-8])
    for _ in range(chance.choice([1, 1, 2, 4])):
        place = chance.randrange(len(described))
        described[place] = chance.choice([described[place] ^ (1 << chance.randrange(8)), 0, 0x7F, 0x80, 0xFF])
        if chance.random() < 0.2:
            described[place : place + 1] = chance.choice([b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x80" * 12])
    return content[:start] + bytes(described) + len(described).to_bytes(4, "little") + b"PAR1"


def _numpy(name: str, content: bytes, chance: Random) -> bytes:
    return other_array(content, chance)


def _zip(name: str, content: bytes, chance: Random) -> bytes:
    """A file inside of a zip archive is damaged, gone, or called otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    chosen = chance.choice(list(members))
    kind = chance.choice(["damaged", "damaged", "damaged", "gone", "renamed"])
    if kind == "damaged":
        members[chosen] = damaged_file(chosen, members[chosen], chance)
    elif kind == "gone":
        del members[chosen]
    else:
        members[chance.choice(["../x.npy", "x", "data.npy"])] = members.pop(chosen)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, inside in members.items():
            archive.writestr(member, inside)
    return written.getvalue()


def _packed(name: str, content: bytes, chance: Random) -> bytes:
    """What is packed is damaged and packed again; or there are several frames, or something behind them."""
    unpack, pack = PACKINGS[name.rpartition(".")[2]]
    inside = unpack(content)
    kind = chance.choice(["inside"] * 60 + ["frames", "behind", "empty"] * 8 + ["zeros"])
    if kind == "inside":
        return pack(damaged_file(name.rpartition(".")[0], inside, chance))
    if kind == "frames":
        middle = chance.randrange(len(inside) + 1)
        return pack(inside[:middle]) + pack(inside[middle:])
    if kind == "behind":
        return content + chance.choice([b"\x00" * 100, b"junk", content[:20]])
    return pack(b"") if kind == "empty" else pack(inside + b"\x00" * (64 << 20))


def _tensors(name: str, content: bytes, chance: Random) -> bytes:
    return other_tensors(content, chance)


def _faiss(name: str, content: bytes, chance: Random) -> bytes:
    """Numbers of an index of FAISS: sizes at the beginning of each part, positions, codes."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        odd = chance.choice([0, 0, 1, 2, 3])  # names of parts of 4 bytes leave what follows at any multiple of one
        shifted = replaced_number(content[odd:], chance, 0, chance.choice([96, 160, 400, None]))
        content = content[:odd] + shifted
    return content


def _yaml(name: str, content: bytes, chance: Random) -> bytes:
    """A line's value changes, or a line is there twice, elsewhere, or deeper."""
    lines = content.splitlines(keepends=True)
    row = chance.randrange(len(lines))
    key, colon, _ = lines[row].partition(b":")
    kind = chance.choice(["value", "value", "value", "twice", "elsewhere", "deeper", "key"])
    if kind == "value":
        lines[row] = key + colon + b" " + chance.choice(YAML) + b"\n"
    elif kind == "twice":
        lines.insert(row, lines[row])
    elif kind == "elsewhere":
        lines.insert(chance.randrange(len(lines)), lines.pop(row))
    elif kind == "deeper":
        lines[row] = b" " * chance.choice([1, 2, 4]) + lines[row]
    else:
        lines[row] = (
            chance.choice([b"x", b"? ", b"encoder", b"<<", b"1", b"null", b"[a]", b"*a"])
            + b":"
            + lines[row].partition(b":")[2]
        )
    return b"".join(lines)


YAML = [
    b"",
    b"null",
    b"~",
    b"-1",
    b".nan",
    b".inf",
    b"1e400",
    b"9" * 40,
    b"true",
    b"[]",
    b"{}",
    b"[1, [2]]",
    b"{a: {b: 1}}",
]
YAML += [b"&a [*a]", b"*b", b"!!python/object/apply:os.system [ls]", b"!!binary aGk=", b"2020-01-01", b"0x1F", b"1_000"]
YAML += [
    b"|\n  text",
    b"'",
    b'"\\ud800"',
    b"[" * 400,
    b"{a: " * 300,
    b"\t",
    b"static",
    b"transformer",
    b"shortlist",
    b"? a",
]
YAML += [
    b"&a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b]",
    b"!!set {a}",
    b"12:30:45",
]
PACKINGS: Mapping[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gz": (gzip.decompress, lambda content: gzip.compress(content, 1)),
    "bz2": (bz2.decompress, lambda content: bz2.compress(content, 1)),
    "xz": (lzma.decompress, lambda content: lzma.compress(content, preset=0)),
    "zst": (lambda content: _streamed(content), lambda content: pa.compress(content, "zstd", asbytes=True)),
}
Structured = Callable[[str, bytes, Random], Any]
STRUCTURED: Mapping[str, Structured] = {
    **dict.fromkeys(("json", "jsonl", "ndjson", "_success"), _json),
    **dict.fromkeys(("csv", "tsv", "tab"), _cells),
    **dict.fromkeys(("arrow", "feather"), _arrow),
    **dict.fromkeys(("parquet", "pq"), _parquet),
    **dict.fromkeys(("yaml", "yml"), _yaml),
    **dict.fromkeys(PACKINGS, _packed),
    "npy": _numpy,
    "npz": _zip,
    "safetensors": _tensors,
    "faiss": _faiss,
}


def _streamed(content: bytes) -> bytes:
    read: bytes = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    return read
