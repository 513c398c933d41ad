"""Layouts of lines: every line that goes into a conversion is a row of it, is counted among what was dropped, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from xmc.data.convert import convert
from xmc.data.readers import open_source
from xmc.data.validate import validate
from xmc.errors import DataError

ROWS = 20
LABELS = [f"label {row}" for row in range(5)]


def written(file: Path, rows: list[str], header: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((f"{header}\n" if header else "") + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return file


def fasttext(root: Path) -> Path:
    return written(root / "data.train", [f"__label__l{row % 5} text {row}" for row in range(ROWS)])


def pecos(root: Path) -> Path:
    written(root / "output-labels.txt", LABELS)
    return written(root / "train.txt", [f"{row % 5}\ttext {row}" for row in range(ROWS)])


def bag_of_words(root: Path) -> Path:
    return written(root / "train.txt", [f"{row % 5} {row}:1.0" for row in range(ROWS)], f"{ROWS} {ROWS} 5")


def xml_sparse(root: Path) -> Path:
    written(root / "Y.txt", LABELS)
    written(root / "trn_X_Y.txt", [f"{row % 5}:1" for row in range(ROWS)], f"{ROWS} 5")
    return written(root / "trn_X.txt", [f"text {row}" for row in range(ROWS)])


def xml_json(root: Path) -> Path:
    written(root / "lbl.json", [f'{{"uid": "{row}", "title": "{text}"}}' for row, text in enumerate(LABELS)])
    rows = [f'{{"uid": "q{row}", "title": "text {row}", "target_ind": [{row % 5}]}}' for row in range(ROWS)]
    return written(root / "trn.json", rows)


def annif(root: Path) -> Path:
    written(root / "vocab.tsv", [f"<http://x/{row}>\t{text}" for row, text in enumerate(LABELS)])
    return written(root / "train.tsv", [f"text {row}\t<http://x/{row % 5}>" for row in range(ROWS)])


def beir(root: Path) -> Path:
    written(root / "corpus.jsonl", [f'{{"_id": "{row}", "text": "{text}"}}' for row, text in enumerate(LABELS)])
    written(
        root / "qrels" / "train.tsv", [f"q{row}\t{row % 5}\t1" for row in range(ROWS)], "query-id\tcorpus-id\tscore"
    )
    return written(root / "queries.jsonl", [f'{{"_id": "q{row}", "text": "text {row}"}}' for row in range(ROWS)])


WRITERS: dict[str, Callable[[Path], Path]] = {
    "fasttext": fasttext,
    "pecos": pecos,
    "bag-of-words": bag_of_words,
    "xml-sparse": xml_sparse,
    "xml-json": xml_json,
    "annif": annif,
    "beir": beir,
}


@pytest.fixture(params=WRITERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, WRITERS[request.param](tmp_path / "in")


def test_a_last_line_without_an_end_is_a_row(source: tuple[str, Path], tmp_path: Path) -> None:
    layout, file = source
    file.write_bytes(file.read_bytes().removesuffix(b"\n"))
    done = convert(open_source(tmp_path / "in", layout), tmp_path / "out")
    assert len(done.dataset.split("train")) == ROWS


@pytest.mark.parametrize("damage", [b"\xff", b"\xff\xfe\x00", b"\xed\xa0\x80"], ids=["byte", "bytes", "surrogate"])
def test_a_line_that_is_not_utf8_is_refused_or_counted(source: tuple[str, Path], tmp_path: Path, damage: bytes) -> None:
    layout, file = source
    lines = file.read_bytes().splitlines(keepends=True)
    kept, mark, behind = lines[-3].rpartition(b"text ")
    lines[-3] = kept + damage + mark + behind
    file.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=rf"{file.name}, line {len(lines) - 2}: "):
        convert(open_source(tmp_path / "in", layout), tmp_path / "out")
    done = convert(open_source(tmp_path / "in", layout), tmp_path / "out", on_bad_row="drop")
    lost = 2 if layout == "beir" else 1  # the line, and the judgement of its query
    assert len(done.dataset.split("train")) == ROWS - 1
    assert sum(done.dropped.values()) == lost, done.dropped


@pytest.mark.parametrize("change", ["one line fewer", "one line more"])
def test_another_number_of_lines_than_something_else_says_is_refused(
    source: tuple[str, Path], tmp_path: Path, change: str
) -> None:
    layout, file = source
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1] if change == "one line fewer" else [*lines, lines[-1].replace(b"19", b"20")]))
    defects = list(validate(open_source(tmp_path / "in", layout)))
    counted_elsewhere = layout in ("bag-of-words", "xml-sparse") or (layout == "beir" and change == "one line fewer")
    assert bool(defects) == counted_elsewhere, defects
    if counted_elsewhere:
        with pytest.raises(DataError):
            convert(open_source(tmp_path / "in", layout), tmp_path / "out")
