"""The contract of readers, for all of them and for one from outside: what fits, what is read, what a relevance of 0 means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import fail, xmc
from families import members_restored
from layouts import unlisted
from scipy.sparse import csr_matrix, save_npz

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.inspect import inspect
from xmc.data.readers import READERS, TabularColumns, open_source
from xmc.data.rows import Defect, Row
from xmc.data.sources import RowSource
from xmc.data.validate import validate
from xmc.errors import ConfigError, DataError

LABELS = ["red", "green", "blue"]
TEXTS = ["a red thing", "a blue thing"]
JUDGED = [{0: 1.0, 1: 0.0}, {2: 0.5}]
"""The relevance of each judged label of each query: label 1 was judged not relevant to the first one."""


def write_json(root: Path) -> None:
    records = [
        {"uid": f"q{row}", "title": text, "target_ind": list(judged), "target_rel": list(judged.values())}
        for row, (text, judged) in enumerate(zip(TEXTS, JUDGED, strict=True))
    ]
    (root / "trn.json").write_text("\n".join(map(json.dumps, records)))
    (root / "lbl.json").write_text("\n".join(json.dumps({"uid": name, "title": name}) for name in LABELS))


def write_sparse(root: Path) -> None:
    pairs = [" ".join(f"{label}:{value:g}" for label, value in judged.items()) for judged in JUDGED]
    (root / "trn_X_Y.txt").write_text("\n".join(["2 3", *pairs]))
    (root / "trn_X.txt").write_text("\n".join(TEXTS))
    (root / "Y.txt").write_text("\n".join(LABELS))


def write_dexml(root: Path) -> None:
    save_npz(root / "Y.trn.npz", csr_matrix((np.array([1, 0, 0.5]), np.array([0, 1, 2]), np.array([0, 2, 3]))))
    (root / "trn_X.txt").write_text("\n".join(TEXTS))
    (root / "Y.txt").write_text("\n".join(LABELS))


def write_tabular(root: Path) -> None:
    columns = {
        "uid": ["q0", "q1"],
        "text": TEXTS,
        "labels": [[LABELS[label] for label in judged] for judged in JUDGED],
        "relevance": [list(judged.values()) for judged in JUDGED],
    }
    pq.write_table(pa.table(columns), root / "train.parquet")
    pq.write_table(pa.table({"uid": LABELS, "text": LABELS}), root / "labels.parquet")


def write_canonical(root: Path) -> None:
    """As conversions wrote it before there was a column for rejected labels."""
    Dataset.from_lists("judged", LABELS, {"train": (TEXTS, [[0], [2]])}, label_uids=LABELS).save(root)
    columns = {
        "uid": ["q0", "q1"],
        "text": TEXTS,
        "labels": pa.array([list(judged) for judged in JUDGED], pa.list_(pa.int32())),
        "relevance": pa.array([list(judged.values()) for judged in JUDGED], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), unlisted(root) / "queries-train.parquet")


def write_bag_of_words(root: Path) -> None:
    """The layout has no relevances: positives only."""
    (root / "train.txt").write_text("2 5 3\n0 1:1.5\n2 4:0.5\n")


def write_beir(root: Path) -> None:
    documents = [{"_id": name, "title": "", "text": name} for name in LABELS]
    queries = [{"_id": f"q{row}", "text": text} for row, text in enumerate(TEXTS)]
    scores = [
        f"q{row}\t{LABELS[label]}\t{value:g}" for row, judged in enumerate(JUDGED) for label, value in judged.items()
    ]
    (root / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (root / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (root / "qrels").mkdir()
    (root / "qrels" / "train.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *scores]))


def write_annif(root: Path) -> None:
    """The layout has no relevances, as the next one."""
    (root / "vocab.tsv").write_text("".join(f"<http://x/{row}>\t{name}\n" for row, name in enumerate(LABELS)))
    (root / "documents.tsv").write_text("a red thing\t<http://x/0>\na blue thing\t<http://x/2>\n")


def write_fasttext(root: Path) -> None:
    (root / "things.train").write_text("__label__red a red thing\n__label__blue a blue thing\n")
    (root / "labels.csv").write_text("\n".join(["uid,text", *(f"{name},{name}" for name in LABELS)]))


def write_pecos(root: Path) -> None:
    rows = [",".join(f"{label}::{value:g}" for label, value in judged.items()) for judged in JUDGED]
    (root / "training-data.txt").write_text("\n".join(f"{row}\t{text}" for row, text in zip(rows, TEXTS, strict=True)))
    (root / "output-labels.txt").write_text("\n".join(LABELS))


class LinesSource(RowSource):
    """A layout from outside: pairs.tsv, lines of "text, tab, label, tab, relevance", a label and a query for each line."""

    format = "lines"
    has_uids = False

    def __init__(self, path: Path, columns: TabularColumns) -> None:
        self.name, self.splits = path.name, ("train",)
        self.file = path / "pairs.tsv"

    @classmethod
    def fits(cls, path: Path) -> bool:
        return (path / "pairs.tsv").is_file()

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        for line, content in enumerate(self.file.read_text().splitlines(), 1):
            yield line, content.split("\t")

    def _labels(self) -> list[str]:
        return sorted({label for _, values in self._lines() for label in values[1].split("|")})

    def labels(self) -> Iterator[Row | Defect]:
        for row, label in enumerate(self._labels()):
            yield Row(self.file, 1, str(row), label, [])

    def queries(self, split: str, labels: int) -> Iterator[Row | Defect]:
        rows = {label: row for row, label in enumerate(self._labels())}
        for line, (text, names, values) in self._lines():
            judged = [rows[label] for label in names.split("|")]
            yield Row(self.file, line, str(line), text, judged, [float(value) for value in values.split("|")])


def write_lines(root: Path) -> None:
    (root / "pairs.tsv").write_text("a red thing\ta|b\t1|0\na blue thing\tc\t0.5\n")


WRITERS: dict[str, Callable[[Path], None]] = {
    "canonical": write_canonical,
    "xml-json": write_json,
    "dexml": write_dexml,
    "xml-sparse": write_sparse,
    "tabular": write_tabular,
    "bag-of-words": write_bag_of_words,
    "beir": write_beir,
    "annif": write_annif,
    "fasttext": write_fasttext,
    "pecos": write_pecos,
    "lines": write_lines,
}


def test_a_layout_without_evidence_says_so(tmp_path: Path) -> None:
    write_lines(tmp_path)
    source = LinesSource(tmp_path, TabularColumns())
    assert source.evidence_kinds("train") == ()
    with pytest.raises(DataError, match="layout lines have no votes of a split; 'train'"):
        source.evidence("votes", "train", 2)


WITHOUT_RELEVANCE = {"bag-of-words", "annif", "fasttext"}


@pytest.fixture
def outside() -> Iterator[None]:
    """With the reader from outside among the others."""
    with members_restored():
        READERS.register("lines", LinesSource)
        yield


def test_every_reader_is_held_to_the_contract(outside: None) -> None:
    assert set(WRITERS) == set(READERS)
    assert all(READERS[name].format == name for name in READERS)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("name", WRITERS)
def test_contract(name: str, tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    reader = READERS[name]
    assert not reader.fits(root)
    WRITERS[name](root)
    assert [other for other in READERS if READERS[other].fits(root)] == [name]
    source = open_source(root)
    assert type(source) is reader
    assert source.splits == ("train",)
    labels = list(source.labels())
    assert len(labels) == 3
    assert all(isinstance(label, Row) and not label.labels for label in labels)
    queries = list(source.queries("train", 3))
    assert all(isinstance(query, Row) for query in queries)
    assert [query.line for query in queries] == sorted(query.line for query in queries)
    assert list(validate(source)) == []

    done = convert(source, tmp_path / "out")
    assert (done.dropped, done.warnings) == ({}, {})
    split = done.dataset.split("train")
    assert [row.indices.tolist() for row in split.positives] == [[0], [2]]
    assert split.positives.data.tolist() == ([1.0, 1.0] if name in WITHOUT_RELEVANCE else [1.0, 0.5])
    rejected = [[], []] if name in WITHOUT_RELEVANCE else [[1], []]
    assert [row.indices.tolist() for row in split.rejected] == rejected
    assert done.dataset.properties["format"] == (1 if name in WITHOUT_RELEVANCE else 2)
    assert done.dataset.targets("train").positive_counts.tolist() == [1, 0, 1]

    inspection = inspect(done.dataset)
    assert inspection.labels_per_query["train"].mean == 1
    assert inspection.rejected_pairs == {"train": sum(map(len, rejected))}
    assert inspection.zero_shot_labels == 1
    assert inspection.queries_per_label_deciles[0] == (0, 0.0, 0)


def test_a_name_is_taken_once_and_names_are_offered(outside: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is a data format 'lines' already"):
        READERS.register("lines", LinesSource)
    with pytest.raises(ConfigError, match=r"There is no data format 'line'; .*Did you mean 'lines'"):
        open_source(tmp_path, "line")


# ----------------------------------------------------------------------------------------------- the column rejected


def judged_table(root: Path, rejected: list[object], end: str = ".jsonl") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = [
        {"uid": f"q{row}", "text": text, "labels": labels, "bad": bad}
        for row, (text, labels, bad) in enumerate(zip(TEXTS, (["red"], ["blue"]), rejected, strict=True))
    ]
    (root / f"train{end}").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_a_column_of_rejected_labels(tmp_path: Path) -> None:
    root = judged_table(tmp_path / "source", [["green", "blue"], []])
    done = xmc("data", "convert", root, tmp_path / "out", "--rejected-column", "bad")
    assert done.returncode == 0, done.stderr
    data = Dataset.load(tmp_path / "out")
    assert data.labels.uids.to_pylist() == ["blue", "green", "red"]  # a rejected label is a label
    assert [row.indices.tolist() for row in data.split("train").rejected] == [[0, 1], []]
    assert [row.indices.tolist() for row in data.split("train").positives] == [[2], [0]]
    shown = xmc("data", "inspect", tmp_path / "out").stdout
    assert "rejected pairs" in shown
    assert "rejected" not in xmc("data", "inspect", "wordnet-8k").stdout


def test_rejected_labels_in_csv_are_cut_by_the_separator(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,labels,rejected\na red thing,red,green;blue\na blue thing,blue,\n")
    source = open_source(tmp_path / "train.csv", None, TabularColumns(separator=";"))
    split = convert(source, tmp_path / "out").dataset.split("train")
    assert [row.indices.tolist() for row in split.rejected] == [[0, 1], []]


def test_a_pair_cannot_be_positive_and_rejected(tmp_path: Path) -> None:
    root = judged_table(tmp_path / "source", [["red"], ["blue", "green"]])
    source = open_source(root, None, TabularColumns(rejected="bad"))
    defects = list(validate(source))
    assert [(defect.line, defect.reason) for defect in defects] == [
        (1, "label positive and rejected"),
        (2, "label positive and rejected"),
    ]
    with pytest.raises(
        DataError, match="line 1: label row 2 is a label of the query 'q0' and rejected for it; decide for one"
    ):
        convert(source, tmp_path / "out")
    dropped = convert(source, tmp_path / "out", on_bad_row="drop")
    assert dropped.dropped == {"label positive and rejected": 2}
    fail(xmc("data", "convert", root, tmp_path / "out2", "--rejected-column", "bad"), "is a label of the query 'q0'")


def test_rejected_labels_must_exist(tmp_path: Path) -> None:
    root = judged_table(tmp_path / "source", [["violet"], []])
    pq.write_table(pa.table({"uid": LABELS, "text": LABELS}), root / "labels.parquet")
    (defect,) = validate(open_source(root, None, TabularColumns(rejected="bad")))
    assert (defect.reason, defect.line) == ("unknown label", 1)
    assert "the label 'violet' is not in" in defect.message

    Dataset.from_lists("x", LABELS, {"train": (TEXTS, [[0], [2]])}, rejected={"train": [[1], []]}).save(tmp_path / "c")
    file = unlisted(tmp_path / "c") / "queries-train.parquet"
    table = pq.read_table(file).drop_columns(["rejected"])
    pq.write_table(table.append_column("rejected", pa.array([[7], [1, 1]], pa.list_(pa.int32()))), file)
    defects = list(validate(open_source(tmp_path / "c")))
    assert [(defect.line, defect.reason) for defect in defects] == [
        (1, "rejected label out of range"),
        (2, "duplicate rejected label in a row"),
    ]


def test_a_dropped_label_takes_its_rejections_along(tmp_path: Path) -> None:
    rows = [{"uid": uid, "title": uid} for uid in ("a", "a", "b")]
    (tmp_path / "lbl.json").write_text("\n".join(map(json.dumps, rows)))
    query = {"uid": "q", "title": "text", "target_ind": [0, 1, 2], "target_rel": [1, 0, 0]}
    (tmp_path / "trn.json").write_text(json.dumps(query))
    done = convert(open_source(tmp_path), tmp_path / "out", on_bad_row="drop")
    assert done.dropped == {"duplicate uid": 1, "rejection of a dropped label": 1}
    assert done.dataset.split("train").rejected.toarray().tolist() == [[False, True]]
