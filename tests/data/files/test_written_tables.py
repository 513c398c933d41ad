"""What pandas, polars or DuckDB writes is read as the strings and labels that went in, by conversion and job alike."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_files import read_by_conversion, read_by_job
from table_writers import LISTS, WRITERS, written

from xmc.batch.options import Columns
from xmc.data.files import TextForm
from xmc.data.readers import TabularColumns, open_source
from xmc.data.rows import Row

PIECES = [
    *(",", ";", "\t", "|", '"', '""', "'", "\n", "\r\n", "\r", " ", "  ", "\\", "\\n", "[", "]", "{", "}", "#", "-"),
    *("a", "sea", "é", "ß", "漢", "🜚", "e\u0301", "\u2028", "\x85", "\xa0", "\ufeff", "\x0b", "\x1f", "\x00"),
    *("1", "1.0", "-0", "1e400", "NaN", "null", "None", "true", "2020-01-01", "007", "0x1f", "2020-01-01T00:00:00Z"),
]
CELLS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
OTHERS = st.sampled_from([datetime.date(2020, 2, 29), None]) | st.none()
TABLES = st.lists(
    st.tuples(CELLS | st.none(), st.lists(CELLS, max_size=4), st.integers(-(2**63), 2**63 - 1), st.booleans()),
    min_size=1,
    max_size=8,
)
IDS = [f"{writer.__name__[1:]}{ending}" for writer, ending in WRITERS]


def table(rows: list[Any], ending: str) -> tuple[dict[str, list[Any]], list[tuple[str, str, list[str]]]]:
    """Columns to be written, and what must be read: uid, text, labels."""
    uids = [f"{row}{'' if text is None else text[:3]}" for row, (text, *_) in enumerate(rows)]
    lists = [labels if ending in LISTS else [label for label in map(clean, labels) if label] for _, labels, *_ in rows]
    cells = lists if ending in LISTS else [";".join(labels) or None for labels in lists]
    columns = {
        "when": [datetime.date(2020, 2, 29)] * len(rows),
        "uid": uids,
        "number": [number for *_, number, _ in rows],
        "text": [text for text, *_ in rows],
        "labels": cells,
        "flag": [flag for *_, flag in rows],
    }
    return columns, list(zip(uids, [text or "" for text in columns["text"]], lists, strict=True))


def clean(label: str) -> str:
    """A label that can stand in a string of labels: without the separator, blanks at its ends, and brackets around."""
    bare = label.replace(";", "").strip()
    while bare and (bare[0] in "[({" or bare[-1] in "])}"):
        bare = bare.strip("[]{}()").strip()
    return bare


def read(path: Path, separator: str | None) -> list[tuple[str, str, list[str]]]:
    """uid, text and labels as the source of a conversion has them; no defects."""
    source = open_source(path, None, TabularColumns(uid="uid", separator=separator))
    names = [label.uid for label in source.labels() if isinstance(label, Row)]
    items = list(source.queries("train", len(names)))
    defects = [str(item) for item in items if not isinstance(item, Row) and item.severity == "error"]
    assert not defects
    return [(row.uid, row.text, [names[label] for label in row.labels]) for row in items if isinstance(row, Row)]


def check(writer: Callable[..., None], ending: str, rows: list[Any], folder: Path) -> None:
    columns, expected = table(rows, ending)
    file = written(writer, columns, folder / f"in{ending}")
    assert read(file, None if ending in LISTS else ";") == expected
    texts = {uid: text for uid, text, _ in expected if not is_blank(text)}
    assert dict(read_by_job(file, Columns(uid="uid"), rows_per_part=3, window=2)) == texts


def is_blank(text: str) -> bool:
    """Whether a job takes a text for an empty one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return bool(pc.utf8_trim_whitespace(pa.scalar(text)).as_py() == "")


def check_one_column(writer: Callable[..., None], ending: str, texts: list[str | None], folder: Path) -> None:
    if ending not in LISTS:  # pandas quotes no carriage return: at the end of a line it is a part of the line's end
        texts = [None if text is None else text.rstrip("\r") for text in texts]
    file = written(writer, {"text": texts}, folder / f"one{ending}")
    expected = [(str(row), text) for row, text in enumerate(texts) if text is not None and not is_blank(text)]
    assert read_by_job(file) == expected


GIVEN = {"rows": TABLES, "texts": st.lists(CELLS | st.none(), max_size=6)}
FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
CASES = int(os.environ.get("XMC_CASES", "100"))
MANY = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize(("writer", "ending"), WRITERS, ids=IDS)
@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_any_table(examples: settings, writer: Callable[..., None], ending: str, tmp_path: Path) -> None:
    @examples
    @given(**GIVEN)
    def holds(rows: list[Any], texts: list[str | None]) -> None:
        check(writer, ending, rows, tmp_path)
        check_one_column(writer, ending, [*texts, "end"], tmp_path)

    holds()


FAST = {"pandas.csv", "polars.jsonl", "duckdb.parquet"}
EACH = [
    pytest.param(*case, id=name, marks=[] if name in FAST else [pytest.mark.slow])
    for case, name in zip(WRITERS, IDS, strict=True)
]


@pytest.mark.parametrize(("writer", "ending"), EACH)
def test_cells_of_five_megabytes(writer: Callable[..., None], ending: str, tmp_path: Path) -> None:
    long = 'a "long", text\r\nof two lines; ' * (5 << 20 >> 5) + "end"
    assert len(long) > 4_800_000
    rows = [
        ("red", ["sea", "ship"], 1, True),
        (long, ["ship"], 2, False),
        (None, [], 3, True),
        ("blue", ["é"], 4, True),
    ]
    columns, expected = table(rows, ending)
    columns["uid"] = list("abcd")
    file = written(writer, columns, tmp_path / f"in{ending}")
    kept = read_by_conversion(file, tmp_path / "out", separator=None if ending in LISTS else ";")
    assert kept == [(uid, text, set(labels)) for uid, (_, text, labels) in zip("abcd", expected, strict=True)]
    assert [uid for uid, _ in read_by_job(file, rows_per_part=1)] == ["a", "b", "d"]


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_what_pandas_writes_in_other_encodings(ending: str, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="tables that pandas writes need pandas")
    frame = pandas.DataFrame({"uid": ["é", "ß"], "text": ["où ?\nlà", 'gr"ün'], "labels": ["a", "ü"]})
    for encoding, named in (("latin-1", "latin-1"), ("utf-8-sig", None), ("utf-16", None), ("cp1252", "cp1252")):
        frame.to_csv(tmp_path / f"in{ending}", index=False, sep="," if ending == ".csv" else "\t", encoding=encoding)
        source = open_source(tmp_path / f"in{ending}", None, TabularColumns(encoding=named))
        assert [label.uid for label in source.labels() if isinstance(label, Row)] == ["a", "ü"]
        assert [row.text for row in source.queries("train", 2) if isinstance(row, Row)] == ["où ?\nlà", 'gr"ün']
        assert TextForm(named).encoding == named
