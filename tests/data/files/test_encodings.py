"""Text files in their encodings and packings: recognised, named by an option, or a defect of the rows that they break."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail, xmc
from record_files import bad_rows, converted, good_rows, read_by_conversion, read_by_job
from worlds import colours, tiny_config

import xmc as library
from xmc.batch.options import Columns
from xmc.data.files import TextForm
from xmc.data.readers import open_source
from xmc.data.validate import validate
from xmc.errors import ConfigError, DataError

ROWS = [("1", "où est le thé ?", ["thé"]), ("2", 'grün, "so" rot', ["ü", "a"])]


def text(ending: str) -> str:
    """The rows as a file of this ending."""
    if ending == ".jsonl":
        return "".join(
            json.dumps({"uid": uid, "text": line, "labels": labels}, ensure_ascii=False) + "\n"
            for uid, line, labels in ROWS
        )
    between = "," if ending == ".csv" else "\t"
    cells = [(uid, '"' + line.replace('"', '""') + '"', f'"{",".join(labels)}"') for uid, line, labels in ROWS]
    return "\n".join(map(between.join, [("uid", "text", "labels"), *cells])) + "\n"


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_byte_order_marks(tmp_path: Path, ending: str, encoding: str) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    (tmp_path / f"in{ending}").write_bytes((mark + text(ending)).encode(encoding))
    assert good_rows(tmp_path / f"in{ending}") == ROWS
    if encoding != "utf-8":
        assert good_rows(tmp_path / f"in{ending}", TextForm(encoding=encoding)) == ROWS


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_latin_1_with_its_name_and_without(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"in{ending}"
    other = text(ending).splitlines(True)[-1].replace('"ü', '"u').replace("2", "3", 1)
    form = TextForm(encoding="latin-1")
    file.write_bytes(text(ending).encode("latin-1"))
    assert good_rows(file, form) == ROWS
    assert read_by_job(file, Columns(encoding="latin-1")) == [row[:2] for row in ROWS]
    assert read_by_conversion(file, tmp_path / "out", encoding="latin-1") == [(u, t, set(ls)) for u, t, ls in ROWS]
    assert good_rows(file) == []
    assert {reason for _, reason, _ in bad_rows(file)} == {"text that is not UTF-8"}
    file.write_bytes(
        text(ending).encode() + other.encode("latin-1")
    )  # one row of another encoding among those of UTF-8
    assert good_rows(file) == ROWS
    ((_, reason, message),) = bad_rows(file)
    assert reason == "text that is not UTF-8"
    assert "byte 0xfc after 'gr'" in message
    assert "--encoding cp1252" in message
    assert read_by_job(file) == [row[:2] for row in ROWS]
    assert converted(file, tmp_path / "out", "drop").dropped == {"text that is not UTF-8": 1}
    with pytest.raises(DataError, match=r"line \d: the text is not UTF-8 \(byte 0xfc after 'gr'\); name the encoding"):
        converted(file, tmp_path / "other")
    assert [defect.reason for defect in validate(open_source(file))] == ["text that is not UTF-8"]


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_files(tmp_path: Path, ending: str, packing: str) -> None:
    content = text(ending).encode()
    file = tmp_path / f"in{ending}{packing}"
    file.write_bytes(PACKINGS[packing](content))
    assert good_rows(file) == ROWS
    if packing == ".gz":
        lines = content.splitlines(True)
        file.write_bytes(b"".join(map(gzip.compress, lines)))  # as `cat a.gz b.gz` leaves it
        assert good_rows(file) == ROWS


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_file_that_ends_early_or_is_none(tmp_path: Path, packing: str) -> None:
    content = "text,labels\n" + "".join(f"text {row * row},label {row}\n" for row in range(50_000))
    packed = PACKINGS[packing](content.encode())
    file = tmp_path / f"in.csv{packing}"
    for damaged in (packed[: len(packed) // 2], packed[:-3], b"text,labels\nred,a\n"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"in.csv\.\w+ cannot be read.*Is the file complete"):
            converted(file, tmp_path / "out", "drop")
        with pytest.raises(DataError, match=r"in.csv\.\w+ cannot be read.*Is the file complete"):
            read_by_job(file)
        assert not (tmp_path / "out").exists()


def test_encodings_that_are_none(tmp_path: Path) -> None:
    for name in ("latin-99", "hex", "rot13", "base64", ""):
        with pytest.raises(ConfigError, match=f"The encoding '{name}' is not known; utf-8, latin-1, cp1252"):
            TextForm(encoding=name)
    (tmp_path / "in.csv").write_bytes(b"text,labels\nred,a\n")
    fail(xmc("data", "convert", tmp_path / "in.csv", tmp_path / "out", "--encoding", "latin-99"), "is not known")


def test_prediction_takes_an_encoding_and_a_delimiter(tmp_path: Path) -> None:
    library.train(colours(), tiny_config(epochs=1), out=tmp_path / "run")
    (tmp_path / "in.csv").write_bytes("uid~text~labels\né~red~ROSÉ\nb~blue~BLEU\n".encode("latin-1"))
    named = ("--encoding", "latin-1", "--delimiter", "~")
    fail(
        xmc(
            "predict", tmp_path / "run", "--input", tmp_path / "in.csv", "--output", tmp_path / "p", "--delimiter", "~"
        ),
        "the uid is not UTF-8 (byte 0xe9 after ''); name the encoding of the file, such as --encoding cp1252",
    )
    done = xmc("predict", tmp_path / "run", "--input", tmp_path / "in.csv", "--output", tmp_path / "p", *named)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "p")["uid"].to_pylist() == ["é", "b"]
