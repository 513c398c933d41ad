"""Data sets: the canonical directory, every reader, every defect, and conversion that loses nothing silently."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from layouts import LABELS, LAYOUTS, RELEVANCE, TEST, TRAIN, dexml, lines, tabular, unlisted, xml_json, xml_sparse
from peak_memory import number_printed

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.inspect import inspect
from xmc.data.readers import TabularColumns, open_source
from xmc.data.validate import validate
from xmc.errors import ConfigError, DataError, InputError


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_converts_to_the_same_data(layout: str, tmp_path: Path) -> None:
    write, format = LAYOUTS[layout]
    write(tmp_path / "source")
    columns = TabularColumns(separator=";")
    source = open_source(tmp_path / "source", None, columns)
    assert source.format == format
    assert list(validate(source)) == []
    done = convert(source, tmp_path / "out", name="wine")
    assert not done.dropped
    data = Dataset.load(tmp_path / "out")
    assert (data.name, data.splits) == ("wine", ("train", "test"))
    assert data.labels.texts.to_pylist() == LABELS
    relevance = [[1.0] * len(values) for values in RELEVANCE] if layout == "csv" else RELEVANCE
    for name, rows in (("train", TRAIN), ("test", TEST)):
        split = data.split(name)
        assert split.texts.to_pylist() == [text for text, _ in rows]
        assert [row.indices.tolist() for row in split.positives] == [labels for _, labels in rows]
        if name == "train":
            assert [row.data.tolist() for row in split.positives] == relevance
    assert data.filter("test").tolist() == [[1, 0]]
    assert data.filter("train").shape == (0, 2)
    again = convert(open_source(tmp_path / "out"), tmp_path / "again")
    assert again.dataset.fingerprint == data.fingerprint
    del data.properties["fingerprint"]
    assert data.fingerprint == again.dataset.fingerprint


def test_bag_of_words(tmp_path: Path) -> None:
    lines(tmp_path / "train.txt", ["3 10 4", "0,2 1:0.5 7:1.0", " 3:1", "3 0:0 2:4"])
    lines(tmp_path / "test.txt", ["1 10 4", "1 9:1"])
    source = open_source(tmp_path)
    assert source.format == "bag-of-words"
    assert [(d.severity, d.line, d.reason) for d in validate(source)] == [("warning", 3, "query without labels")]
    data = convert(source, tmp_path / "out").dataset
    assert data.split("train").texts.to_pylist() == ["f1 f7", "f3", "f2"]
    assert [row.indices.tolist() for row in data.split("train").positives] == [[0, 2], [], [3]]
    assert data.labels.texts.to_pylist() == ["label0", "label1", "label2", "label3"]


def test_labels_without_a_table_are_collected(tmp_path: Path) -> None:
    lines(tmp_path / "data.csv", ["id,body,tags", "1,hello,b|a", "2,world,c"])
    columns = TabularColumns(uid="id", text="body", labels="tags", separator="|")
    data = convert(open_source(tmp_path / "data.csv", None, columns), tmp_path / "out").dataset
    assert data.labels.uids.to_pylist() == ["a", "b", "c"]
    assert [row.indices.tolist() for row in data.split("train").positives] == [[0, 1], [2]]
    with pytest.raises(DataError, match=r"no columns 'labels' and 'text', only id, body, tags"):
        convert(open_source(tmp_path / "data.csv"), tmp_path / "out2")


def replace(path: Path, row: int, text: bytes) -> None:
    rows = path.read_bytes().split(b"\n")
    rows[row - 1] = text
    path.write_bytes(b"\n".join(rows))


def query(**changes: object) -> bytes:
    base = {"uid": "x", "title": "t", "target_ind": [0], "target_rel": [1.0]}
    return json.dumps({**base, **changes}).encode()


JSON_DEFECTS = [
    ("trn.json", 2, query(target_ind=[3]), "error", "label out of range"),
    ("trn.json", 2, query(target_ind=[-1]), "error", "label out of range"),
    ("trn.json", 3, query(uid="trn0"), "error", "duplicate uid"),
    ("lbl.json", 3, b'{"uid": "L0", "title": "again"}', "error", "duplicate uid"),
    ("trn.json", 1, query(target_ind=[1, 1], target_rel=[1, 1]), "warning", "duplicate label in a row"),
    ("trn.json", 2, b'{"uid": "x", "title": "a \\ud800", "target_ind": [0]}', "error", "text that is not UTF-8"),
    ("trn.json", 2, b'{"uid": "\\udc00", "title": "a", "target_ind": [0]}', "error", "uid that is not UTF-8"),
    ("lbl.json", 3, b'{"uid": "x", "title": "a \\ud800"}', "error", "text that is not UTF-8"),
    ("trn.json", 2, query(uid=None), "error", "null uid"),
    ("trn.json", 2, query(title=["a"]), "error", "text that is no string"),
    ("trn.json", 2, b"  ", "error", "malformed line"),
    ("trn.json", 1, query(target_rel=[float("nan")]), "error", "bad relevance"),
    ("trn.json", 1, query(target_rel=[float("inf")]), "error", "bad relevance"),
    ("trn.json", 1, query(target_rel=[1.0, 1.0]), "error", "relevance of another length"),
    ("trn.json", 2, b'{"uid": "x", "title": "caf\xe9", "target_ind": [0]}', "error", "broken UTF-8"),
    ("trn.json", 2, b'{"uid": "x", "title": ', "error", "malformed line"),
    ("trn.json", 2, b"[1, 2]", "error", "malformed line"),
    ("trn.json", 2, query(target_ind=[0.5]), "error", "malformed line"),
    ("trn.json", 2, query(target_ind=None), "error", "malformed line"),
    ("trn.json", 2, query(title="  "), "warning", "empty text"),
    ("trn.json", 2, query(target_ind=[], target_rel=[]), "warning", "query without labels"),
    ("filter_labels_test.txt", 1, b"2 0", "error", "filter row out of range"),
    ("filter_labels_test.txt", 1, b"0 3", "error", "filter row out of range"),
    ("filter_labels_test.txt", 1, b"0 zero", "error", "malformed filter line"),
]


def test_csv_fields_stay_as_they_are_written(tmp_path: Path) -> None:
    lines(
        tmp_path / "train.csv", ["uid,text,labels,relevance", "001,1.50,007,0.5", '002,null,"NA,007","1,2"', "003,x,,"]
    )
    data = convert(open_source(tmp_path), tmp_path / "out").dataset
    assert data.labels.uids.to_pylist() == ["007", "NA"]
    split = data.split("train")
    assert split.uids.to_pylist() == ["001", "002", "003"]
    assert split.texts.to_pylist() == ["1.50", "null", "x"]
    assert split.positives.toarray().tolist() == [[0.5, 0], [2, 1], [0, 0]]


def test_files_of_another_shape_are_named(tmp_path: Path) -> None:
    lines(tmp_path / "twice.csv", ["uid,text,text,labels", "1,a,b,x"])
    with pytest.raises(DataError, match=r"twice.csv has the column 'text' more than once"):
        convert(open_source(tmp_path / "twice.csv"), tmp_path / "out")
    Dataset.from_lists("small", ["a", "b"], {"train": (["x"], [[0]])}).save(tmp_path / "data")
    labels = unlisted(tmp_path / "data") / "labels.parquet"
    pq.write_table(pq.read_table(labels).select(["text"]), labels)
    with pytest.raises(DataError, match=r"labels.parquet has no column 'uid', only text"):
        list(validate(open_source(tmp_path / "data")))
    pq.write_table(pa.table({"uid": ["a"], "text": ["b"]}), labels)
    queries = tmp_path / "data" / "queries-train.parquet"
    pq.write_table(pa.table({"uid": ["1"], "text": ["x"], "labels": [["a"]]}), queries)
    with pytest.raises(DataError, match=r"queries-train.parquet cannot be read as uid, text, labels, relevance"):
        list(validate(open_source(tmp_path / "data")))
    for text in (
        '{"format": 1, "splits": {"train": 1}}',
        "[1]",
        '{"format": 99, "name": "x", "labels": 1, "splits": {}}',
    ):
        (tmp_path / "data" / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset.json is not of format 1"):
            Dataset.load(tmp_path / "data")


def test_a_relevance_that_is_no_number_is_a_defect(tmp_path: Path) -> None:
    rows = [{"text": "a", "labels": ["x"], "relevance": ["high"]}, {"text": "b", "labels": ["x"], "relevance": ["1"]}]
    lines(tmp_path / "train.jsonl", [json.dumps(row) for row in rows])
    (defect,) = validate(open_source(tmp_path))
    assert (defect.line, defect.reason) == (1, "bad relevance")
    done = convert(open_source(tmp_path), tmp_path / "out", on_bad_row="drop")
    assert dict(done.dropped) == {"bad relevance": 1}
    assert done.dataset.split("train").texts.to_pylist() == ["b"]


@pytest.mark.parametrize(("file", "line", "text", "severity", "reason"), JSON_DEFECTS, ids=lambda v: str(v)[:30])
def test_defects_are_found_where_they_are(
    file: str, line: int, text: bytes, severity: str, reason: str, tmp_path: Path
) -> None:
    root = tmp_path / "source"
    xml_json(root)
    replace(root / file, line, text)
    found = list(validate(open_source(root)))
    assert [(d.severity, d.file.name, d.line, d.reason) for d in found] == [(severity, file, line, reason)]
    if severity == "warning":
        done = convert(open_source(root), tmp_path / "out")
        assert dict(done.warnings) == {reason: 1}
        assert len(done.dataset.split("train")) == 3
        return
    with pytest.raises(DataError, match=rf"{file}, line {line}: .*--on-bad-row=drop"):
        convert(open_source(root), tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    done = convert(open_source(root), tmp_path / "out", on_bad_row="drop")
    assert done.dropped[reason] == 1
    lost_queries = 1 if file == "trn.json" else 0
    assert len(done.dataset.split("train")) == 3 - lost_queries
    assert len(done.dataset.labels) == (2 if file == "lbl.json" else 3)


def test_dropped_rows_renumber_what_follows(tmp_path: Path) -> None:
    root = tmp_path / "source"
    xml_json(root)
    replace(root / "lbl.json", 1, b"{broken")
    replace(root / "tst.json", 1, query(target_ind=[99]))
    lines(root / "filter_labels_test.txt", ["1 0", "1 1", "0 2"])
    done = convert(open_source(root), tmp_path / "out", on_bad_row="drop")
    data = done.dataset
    assert data.labels.uids.to_pylist() == ["L1", "L2"]
    assert [row.indices.tolist() for row in data.split("train").positives] == [[], [0], [1]]
    assert [row.indices.tolist() for row in data.split("test").positives] == [[1]]
    assert data.filter("test").tolist() == [[0, 0]]
    assert dict(done.dropped) == {"malformed line": 1, "label out of range": 1, "positive of a dropped label": 2}


def test_headers_that_disagree(tmp_path: Path) -> None:
    xml_sparse(tmp_path)
    replace(tmp_path / "trn_X_Y.txt", 1, b"4 7")
    found = [(d.file.name, d.line, d.reason) for d in validate(open_source(tmp_path))]
    assert found == [("trn_X_Y.txt", 1, "header disagrees"), ("trn_X_Y.txt", 1, "header disagrees")]
    replace(tmp_path / "trn_X_Y.txt", 1, b"queries")
    assert [d.reason for d in validate(open_source(tmp_path))] == ["header disagrees"]
    lines(tmp_path / "trn_X_Y.txt", ["3 3", "0:1", "0:1 x:1", "2:1"])
    found = [(d.file.name, d.line, d.reason) for d in validate(open_source(tmp_path))]
    assert found == [("trn_X_Y.txt", 3, "malformed line")]
    lines(tmp_path / "trn_X.txt", ["one", "two"])
    assert "line counts differ" in [d.reason for d in validate(open_source(tmp_path))]
    (tmp_path / "trn_X.txt").unlink()
    assert "no text file" in [d.reason for d in validate(open_source(tmp_path))]


def test_bag_of_words_defects(tmp_path: Path) -> None:
    lines(tmp_path / "train.txt", ["3 10 4", "0 1:x", "0 10:1"])
    found = [(d.line, d.reason) for d in validate(open_source(tmp_path))]
    assert (2, "malformed line") in found
    assert (3, "feature out of range") in found
    assert (1, "header disagrees") in found


def test_files_cut_short_are_refused(tmp_path: Path) -> None:
    xml_json(tmp_path, ".json.gz")
    file = tmp_path / "trn.json.gz"
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"trn.json.gz cannot be read past line \d+.*Is the file complete"):
        list(validate(open_source(tmp_path)))
    parquet = tmp_path / "parquet"
    tabular(parquet, ".parquet")
    (parquet / "train.parquet").write_bytes((parquet / "train.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train.parquet cannot be read"):
        convert(open_source(parquet), tmp_path / "out")


def test_pickles_are_refused(tmp_path: Path) -> None:
    dexml(tmp_path)
    np.savez(tmp_path / "Y.trn.npz", indptr=np.array([None, {}], object), format="csr")
    with pytest.raises(DataError, match=r"Y.trn.npz cannot be read as a scipy CSR matrix without pickles"):
        list(validate(open_source(tmp_path)))


def test_dexml_that_does_not_fit(tmp_path: Path) -> None:
    dexml(tmp_path)
    sp.save_npz(tmp_path / "Y.trn.npz", sp.csr_matrix((2, 5), dtype=np.float32))
    reasons = [d.reason for d in validate(open_source(tmp_path)) if d.severity == "error"]
    assert sorted(set(reasons)) == ["header disagrees", "line counts differ"]


def test_unknown_labels_of_a_table(tmp_path: Path) -> None:
    tabular(tmp_path, ".jsonl")
    replace(tmp_path / "train.jsonl", 2, b'{"uid": "u", "text": "t", "labels": ["L9"], "relevance": [1.0]}')
    found = [(d.file.name, d.line, d.reason) for d in validate(open_source(tmp_path))]
    assert found == [("train.jsonl", 2, "unknown label")]


def test_sources_that_are_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nothing")
    with pytest.raises(DataError, match="no data set in a known format"):
        open_source(tmp_path)
    xml_json(tmp_path)
    with pytest.raises(DataError, match="does not hold the files of the format dexml"):
        open_source(tmp_path, "dexml")
    with pytest.raises(ConfigError, match="no data format 'xml'"):
        open_source(tmp_path, "xml")


def test_dataset_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a shipped data set \(wordnet-8k\)"):
        Dataset.load("wordnet")
    data = Dataset.from_lists("x", ["a", "b"], {"train": (["q"], [[1]])})
    with pytest.raises(DataError, match="no split 'test', only train"):
        data.split("test")
    with pytest.raises(DataError, match=r"row 1: label 2 is outside of the 2 labels"):
        Dataset.from_lists("x", ["a", "b"], {"train": (["q", "r"], [[1], [2]])})
    with pytest.raises(InputError, match="1 texts and 0 lists"):
        Dataset.from_lists("x", ["a"], {"train": (["q"], [])})
    data.save(tmp_path / "x")
    loaded = Dataset.load(tmp_path / "x")
    assert loaded.fingerprint == data.fingerprint
    assert loaded.split("train").uids.to_pylist() == ["0"]
    (unlisted(tmp_path / "x") / "labels.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"labels.parquet cannot be read"):
        _ = Dataset.load(tmp_path / "x").labels
    properties = json.loads((tmp_path / "x" / "dataset.json").read_text())
    (tmp_path / "x" / "dataset.json").write_text(json.dumps({**properties, "format": 4}))
    with pytest.raises(DataError, match="not of format 1"):
        Dataset.load(tmp_path / "x")


def test_shipped_data_set() -> None:
    data = Dataset.load("wordnet-8k")
    assert (len(data.labels), len(data.split("train")), len(data.split("test"))) == (7488, 11313, 2828)
    assert data.filter("test").shape == (1047, 2)
    found = inspect(data)
    assert found.zero_shot_labels == 846
    assert round(found.zero_shot_pairs["test"], 3) == 0.063
    assert round(found.labels_per_query["train"].mean, 2) == 4.97
    assert found.queries_per_label_deciles[-1][2] == 3684
    size = sum(file.stat().st_size for file in data.directory.iterdir()) if data.directory else 0
    assert 0 < size < 2_000_000


@pytest.mark.skipif(not os.environ.get("XMC_DATA"), reason="XMC_DATA does not name the folder with LF-WordNet-8K")
def test_shipped_data_set_is_its_source(tmp_path: Path) -> None:
    done = convert(open_source(Path(os.environ["XMC_DATA"]) / "LF-WordNet-8K"), tmp_path)
    assert done.dataset.fingerprint == Dataset.load("wordnet-8k").fingerprint


STREAM = """
import sys
from pathlib import Path
from xmc.data.convert import convert
from xmc.data.readers import open_source
convert(open_source(Path(sys.argv[1])), Path(sys.argv[3]))
before = peak()
convert(open_source(Path(sys.argv[2])), Path(sys.argv[4]))
print(peak() - before)
"""


@pytest.mark.slow
def test_conversion_streams(tmp_path: Path) -> None:
    """Four times the source, 90 MB more, needs less than these: both fill some batches."""
    text = "word " * 300
    for name, count in (("small", 20_000), ("big", 80_000)):
        xml_json(tmp_path / name)
        with (tmp_path / name / "trn.json").open("w") as file:
            for row in range(count):
                file.write(json.dumps({"uid": f"u{row}", "title": text, "target_ind": [row % 3]}) + "\n")
    assert number_printed(STREAM, *(tmp_path / name for name in ("small", "big", "out1", "out2"))) < 45
    assert len(Dataset.load(tmp_path / "out2").split("train")) == 80_000
