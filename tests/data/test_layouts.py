"""What all layouts share: blank ends of files, labels twice in a row, half characters, encodings, packing, and separators."""

from __future__ import annotations

import bz2
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail, xmc
from layouts import LABELS, TRAIN, dexml, lines, tabular, unlisted, xml_json, xml_sparse
from scipy.sparse import csr_matrix, save_npz

from xmc.data.convert import Conversion, convert
from xmc.data.dataset import Dataset
from xmc.data.readers import READERS, TabularColumns, open_source
from xmc.data.validate import validate
from xmc.errors import DataError


def converted(source: Path, out: Path, columns: TabularColumns | None = None, **options: str) -> Conversion:
    return convert(open_source(source, None, columns), out, **options)  # type: ignore[arg-type]


def found(source: Path, columns: TabularColumns | None = None) -> list[tuple[str, int, str]]:
    return [(defect.file.name, defect.line, defect.reason) for defect in validate(open_source(source, None, columns))]


def append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(text)


# ------------------------------------------------------------------------------------------------------ blank lines


def csv(root: Path) -> None:
    tabular(root, ".csv")


def jsonl(root: Path) -> None:
    tabular(root, ".jsonl")


@pytest.mark.parametrize("write", [xml_json, xml_sparse, dexml, csv, jsonl], ids=lambda write: write.__name__)
@pytest.mark.parametrize("blank", ["\n", "\r\n\n", "  \n \n"], ids=["one", "two", "spaces"])
def test_blank_lines_at_the_end_are_no_rows(write: Callable[[Path], None], blank: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source)
    columns = TabularColumns(separator=";")
    before = converted(source, tmp_path / "before", columns).dataset
    for file in source.rglob("*"):
        if file.suffix in (".json", ".txt", ".jsonl") or (file.suffix == ".csv" and " " not in blank):
            append(file, blank)
    assert found(source, columns) == []
    assert converted(source, tmp_path / "after", columns).dataset.fingerprint == before.fingerprint


def test_blank_lines_at_the_end_of_bags_of_words(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("2 5 2\n0 1:1\n1 2:1\n\n\n")
    (tmp_path / "Yf.txt").write_text("red\nblue\n\n")
    data = converted(tmp_path, tmp_path / "out").dataset
    assert data.split("train").texts.to_pylist() == ["f1", "f2"]
    assert data.labels.texts.to_pylist() == ["red", "blue"]


def test_a_blank_line_that_the_matrix_counts_is_an_empty_text(tmp_path: Path) -> None:
    lines(tmp_path / "trn_X_Y.txt", ["3 3", "0:1", "", "2:1"])
    (tmp_path / "trn_X.txt").write_text("one\ntwo\n\n")
    (tmp_path / "Y.txt").write_text("a\nb\n\n")
    done = converted(tmp_path, tmp_path / "out")
    assert done.dataset.split("train").texts.to_pylist() == ["one", "two", ""]
    assert [row.indices.tolist() for row in done.dataset.split("train").positives] == [[0], [], [2]]
    assert done.dataset.labels.texts.to_pylist() == ["a", "b", ""]
    assert dict(done.warnings) == {"empty text": 2, "query without labels": 1}


def test_a_blank_line_among_others_is_not_passed_over(tmp_path: Path) -> None:
    xml_json(tmp_path)
    text = (tmp_path / "lbl.json").read_text().split("\n")
    (tmp_path / "lbl.json").write_text("\n".join([text[0], "", *text[1:]]))
    assert ("lbl.json", 2, "malformed line") in found(tmp_path)  # the rows behind keep their places


# ------------------------------------------------------------------------------------------- a label twice in a row


def twice_json(root: Path) -> None:
    lines(root / "lbl.json", [json.dumps({"uid": name, "title": name}) for name in "abc"])
    query = {"uid": "q", "title": "text", "target_ind": [1, 0, 1, 1], "target_rel": [0.5, 1, 2, 0]}
    lines(root / "trn.json", [json.dumps(query)])


def twice_sparse(root: Path) -> None:
    lines(root / "trn_X_Y.txt", ["1 3", "1:0.5 0:1 1:2 1:0"])
    lines(root / "trn_X.txt", ["text"])
    lines(root / "Y.txt", ["a", "b", "c"])


def twice_dexml(root: Path) -> None:
    lines(root / "trn_X.txt", ["text"])
    lines(root / "Y.txt", ["a", "b", "c"])
    values = csr_matrix((np.array([0.5, 1, 2, 0]), np.array([1, 0, 1, 1]), np.array([0, 4])), shape=(1, 3))
    save_npz(root / "Y.trn.npz", values)


def twice_table(root: Path) -> None:
    row = {
        "uid": "q",
        "text": "text",
        "labels": ["b", "a", "b", "b"],
        "relevance": [0.5, 1, 2, 0],
        "rejected": ["c", "c"],
    }
    pq.write_table(pa.Table.from_pylist([row]), root / "train.parquet")


@pytest.mark.parametrize(
    "write", [twice_json, twice_sparse, twice_dexml, twice_table], ids=lambda write: write.__name__
)
def test_a_label_twice_in_a_row_is_taken_once_with_its_greatest_relevance(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path)
    done = converted(tmp_path, tmp_path / "out")
    split = done.dataset.split("train")
    assert split.positives.toarray()[0, :2].tolist() == [1, 2]
    assert done.warnings["duplicate label in a row"] == 1
    assert not done.dropped
    table = write is twice_table
    assert done.warnings["duplicate rejected label in a row"] == table
    assert split.rejected.toarray().tolist() == [[False, False, table]]
    assert {defect.severity for defect in validate(open_source(tmp_path))} == {"warning"}


# ---------------------------------------------------------------------------------- encodings, marks, and packed files


def test_every_text_layout_takes_an_encoding_and_skips_a_mark(tmp_path: Path) -> None:
    for number, write in enumerate((xml_json, xml_sparse, dexml, csv, jsonl)):
        for encoding in ("utf-8-sig", "utf-16", "cp1252"):
            source = tmp_path / f"{number}-{encoding}"
            write(source)
            for file in source.rglob("*"):
                if file.suffix in (".json", ".txt", ".csv", ".jsonl"):
                    text = file.read_text(encoding="utf-8").replace("\\u00e9", "é").replace("\\u00f9", "ù")
                    file.write_bytes(text.encode(encoding))
            columns = TabularColumns(separator=";", encoding="cp1252" if encoding == "cp1252" else None)
            data = converted(source, tmp_path / f"out-{number}-{encoding}", columns).dataset
            assert data.labels.texts.to_pylist() == LABELS, (write, encoding)
            assert data.split("train").texts.to_pylist() == [text for text, _ in TRAIN]


def test_a_line_of_another_encoding_says_so(tmp_path: Path) -> None:
    xml_sparse(tmp_path / "source")
    (tmp_path / "source" / "Y.txt").write_bytes("red wine\nwhite wine\ncafé\n".encode("cp1252"))
    fail(
        xmc("data", "convert", tmp_path / "source", tmp_path / "out"),
        "Y.txt, line 3: the text is not UTF-8 (byte 0xe9 after 'caf'); name the encoding of the file, such as --encoding",
    )


def test_texts_keep_a_carriage_return(tmp_path: Path) -> None:
    lines(tmp_path / "trn_X_Y.txt", ["2 1", "0:1", "0:1"])
    (tmp_path / "trn_X.txt").write_bytes(b"one\rand more\r\ntwo\r\n")
    lines(tmp_path / "Y.txt", ["a"])
    assert converted(tmp_path, tmp_path / "out").dataset.split("train").texts.to_pylist() == ["one\rand more", "two"]


def test_text_files_may_be_packed(tmp_path: Path) -> None:
    xml_sparse(tmp_path)
    file = tmp_path / "Y.txt"
    (tmp_path / "Y.txt.bz2").write_bytes(bz2.compress(file.read_bytes()))
    file.unlink()
    with pa.CompressedOutputStream(str(tmp_path / "trn_X.txt.zst"), "zstd") as stream:
        stream.write((tmp_path / "trn_X.txt").read_bytes())
    (tmp_path / "trn_X.txt").unlink()
    assert converted(tmp_path, tmp_path / "out").dataset.labels.texts.to_pylist() == LABELS


def test_half_a_surrogate_pair_is_a_defect_of_every_row(tmp_path: Path) -> None:
    rows = ['{"uid": "a", "text": "good", "labels": ["x"]}', '{"uid": "b", "text": "x", "labels": ["\\ud800"]}',
            '{"uid": "c", "text": "\\udfff", "labels": ["x"]}', '{"uid": "\\ud800", "text": "x", "labels": ["x"]}']  # fmt: skip
    lines(tmp_path / "train.jsonl", rows)
    expected = [
        ("train.jsonl", 2, "label that is not UTF-8"),
        ("train.jsonl", 3, "text that is not UTF-8"),
        ("train.jsonl", 4, "uid that is not UTF-8"),
    ]
    assert found(tmp_path) == expected
    fail(xmc("data", "convert", tmp_path, tmp_path / "out"), "line 2: the label has half a surrogate pair (\\ud800)")
    done = converted(tmp_path, tmp_path / "out", on_bad_row="drop")
    assert done.dataset.split("train").uids.to_pylist() == ["a"]
    assert sum(done.dropped.values()) == 3


# ------------------------------------------------------------------------------------------- further files of layouts


def test_filters_are_read_beside_bags_of_words(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("2 5 3\n0 1:1\n1 2:1\n")
    (tmp_path / "test.txt").write_text("2 5 3\n0 1:1\n1 2:1\n")
    lines(tmp_path / "filter_labels_test.txt", ["1 1", "0 2"])
    lines(tmp_path / "filter_labels_train.txt", ["0 1"])
    data = converted(tmp_path, tmp_path / "out").dataset
    assert data.filter("test").tolist() == [[1, 1], [0, 2]]
    assert data.filter("train").tolist() == [[0, 1]]
    lines(tmp_path / "filter_labels_test.txt", ["2 0"])
    assert found(tmp_path) == [("filter_labels_test.txt", 1, "filter row out of range")]


@pytest.mark.parametrize("folder", ["", "raw_data"])
def test_label_texts_may_be_called_yf(folder: str, tmp_path: Path) -> None:
    xml_sparse(tmp_path, ("trn_X.txt", "tst_X.txt", f"{folder}/Yf.txt" if folder else "Yf.txt"))
    assert converted(tmp_path, tmp_path / "out").dataset.labels.texts.to_pylist() == LABELS


def test_a_label_table_has_column_names_of_its_own(tmp_path: Path) -> None:
    source = tmp_path / "source"
    lines(source / "train.csv", ["id,body,tags", "1,hello,B|A", "2,world,A"])
    lines(source / "labels.csv", ["code,name", "A,first", "B,second"])
    options = ["--uid-column", "id", "--text-column", "body", "--labels-column", "tags", "--separator", "|",
               "--label-uid-column", "code", "--label-text-column", "name"]  # fmt: skip
    done = xmc("data", "convert", source, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    data = Dataset.load(tmp_path / "out")
    assert data.labels.texts.to_pylist() == ["first", "second"]
    assert [row.indices.tolist() for row in data.split("train").positives] == [[0, 1], [0]]
    assert data.split("train").uids.to_pylist() == ["1", "2"]
    with pytest.raises(DataError, match=r"labels.csv has no columns 'uid' and 'text', only code, name"):
        converted(source, tmp_path / "out2", TabularColumns("id", "body", "tags", separator="|"))


def test_what_a_line_counts_is_said(tmp_path: Path) -> None:
    """Lines of text files, also where a record has several; rows of all others."""
    lines(tmp_path / "a" / "train.csv", ["uid,text,labels", '1,"two\nlines",x', "2,b,x", "1,again,x"])
    (defect,) = validate(open_source(tmp_path / "a"))
    assert str(defect).endswith("train.csv, line 5: the uid '1' stands a second time.")
    (tmp_path / "b").mkdir()
    table = pa.table({"uid": ["1", "2", "1"], "text": ["a", "b", "c"], "labels": [["x"], ["x"], ["x"]]})
    pq.write_table(table, tmp_path / "b" / "train.parquet")
    (defect,) = validate(open_source(tmp_path / "b"))
    assert str(defect).endswith("train.parquet, row 3: the uid '1' stands a second time.")
    Dataset.from_lists("x", ["a"], {"train": (["q", "r"], [[0], [0]])}).save(tmp_path / "c")
    file = unlisted(tmp_path / "c") / "queries-train.parquet"
    columns = pq.read_table(file)
    pq.write_table(columns.set_column(0, "uid", pa.array(["0", "0"])), file)
    (defect,) = validate(open_source(tmp_path / "c"))
    assert str(defect).endswith("queries-train.parquet, row 2: the uid '0' stands a second time.")


# --------------------------------------------------------------------------------------------------------- separators


def test_cells_that_another_separator_would_cut_are_warned_of_once(tmp_path: Path) -> None:
    rows = [f"text {row},{'sea;ship' if row % 3 else 'sea'}" for row in range(30)]
    lines(tmp_path / "train.csv", ["text,labels", *rows])
    done = converted(tmp_path, tmp_path / "out")
    (remark,) = done.remarks
    assert remark.endswith(
        "train.csv, line 3: 'sea;ship' is taken for one label, and so it is in 20 of 30 rows with labels, which hold ';'; "
        "if it is between labels, name it with --separator ';'."
    )
    shown = xmc("data", "convert", tmp_path, tmp_path / "out2")
    assert shown.stdout.count("name it with --separator ';'") == 1
    assert sum("--separator ';'" in str(defect) for defect in validate(open_source(tmp_path))) == 1
    assert not converted(tmp_path, tmp_path / "out3", TabularColumns(separator=";")).remarks
    assert Dataset.load(tmp_path / "out3").labels.uids.to_pylist() == ["sea", "ship"]


@pytest.mark.parametrize(("cell", "mark"), [("a|b", "'|'"), ("a\tb", "$'\\t'"), ("a,b", "','"), ("a;b", "';'")])
def test_a_file_with_lists_is_warned_of_too(cell: str, mark: str, tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", [json.dumps({"text": "x", "labels": cell}) for _ in range(5)])
    pq.write_table(pa.table({"text": ["x"] * 5, "labels": [cell] * 5}), tmp_path / "test.parquet")
    remarks = converted(tmp_path, tmp_path / "out").remarks
    assert len(remarks) == 2
    assert all(f"--separator {mark}" in remark for remark in remarks)


def test_names_with_commas_and_few_cells_are_not_warned_of(tmp_path: Path) -> None:
    rows = [{"text": "x", "labels": ["Paris, France", "b"]}] * 3 + [{"text": "x", "labels": ["a;b"]}] * 3
    lines(tmp_path / "train.jsonl", [json.dumps(row) for row in rows])
    assert not converted(tmp_path, tmp_path / "out").remarks


def test_an_unknown_label_whose_parts_are_known_names_the_separator(tmp_path: Path) -> None:
    lines(tmp_path / "train.csv", ["text,labels", "x,a;b"])
    lines(tmp_path / "labels.csv", ["uid,text", "a,A", "b,B"])
    with pytest.raises(
        DataError, match=r"line 2: the label 'a;b' is not in .*labels.csv. If it is several labels.*';'"
    ):
        converted(tmp_path, tmp_path / "out")


# ------------------------------------------------------------------------------------------------- what is offered


def test_help_and_documentation_name_every_format() -> None:
    shown = " ".join(xmc("data", "convert", "--help").stdout.replace("│", " ").split())
    page = (Path(__file__).parents[2] / "docs" / "data-formats.md").read_text(encoding="utf-8")
    assert ", ".join(READERS) in shown
    assert sorted(re.findall(r"^## `([\w-]+)`$", page, re.MULTILINE)) == sorted(READERS)


@pytest.mark.parametrize("write", [xml_json, xml_sparse, dexml, csv, jsonl], ids=lambda write: write.__name__)
def test_files_that_cannot_be_read_to_their_end_are_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    """Each file of a layout in turn, packed and cut short."""
    source = tmp_path / "source"
    write(source)
    for file in sorted(path for path in source.rglob("*") if path.suffix != ".npz"):
        if file.is_file():
            kept = file.read_bytes()
            packed = file.with_name(f"{file.name}.gz")
            packed.write_bytes(gzip.compress(kept)[:-9])
            file.unlink()
            with pytest.raises(
                DataError, match=rf"{packed.name} cannot be read past line \d+: .* Is the file complete"
            ):
                list(validate(open_source(source, None, TabularColumns(separator=";"))))
            packed.unlink()
            file.write_bytes(kept)


def test_a_header_of_bag_of_words_that_speaks_of_more_labels_than_there_can_be(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 5 1000000000\n0 1:1\n")
    with pytest.raises(
        DataError, match=r"train.txt, line 1: the header says 1,000,000,000 labels, and more than 50,000,000"
    ):
        convert(open_source(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
