"""The same small data set in every layout that is read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

__all__ = [
    "LABELS",
    "LAYOUTS",
    "RELEVANCE",
    "TEST",
    "TRAIN",
    "dexml",
    "lines",
    "tabular",
    "unlisted",
    "write_filter",
    "xml_json",
    "xml_sparse",
]


# One small data set, written in every layout: three labels, three training queries, two test queries, one filter pair.
LABELS = ["red wine", "white wine", "café"]


TRAIN = [("a glass of red", [0]), ("any wine", [0, 1]), ("où ?", [2])]


TEST = [("white", [1]), ("coffee", [2])]


RELEVANCE = [[1.0], [0.5, 2.0], [1.0]]


def lines(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{row}\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")


def unlisted(directory: Path) -> Path:
    """A canonical directory whose files may be changed by hand: as versions wrote it that listed no files."""
    file = directory / "dataset.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    del described["files"]
    file.write_text(json.dumps(described), encoding="utf-8")
    return directory


def write_filter(root: Path) -> None:
    lines(root / "filter_labels_test.txt", ["1 0"])


def xml_json(root: Path, end: str = ".json") -> None:
    lines(root / f"lbl{end}", [json.dumps({"uid": f"L{i}", "title": text}) for i, text in enumerate(LABELS)])
    for name, rows in (("trn", TRAIN), ("tst", TEST)):
        records = [
            {
                "uid": f"{name}{i}",
                "title": text,
                "target_ind": labels,
                "target_rel": RELEVANCE[i] if name == "trn" else [1.0] * len(labels),
            }
            for i, (text, labels) in enumerate(rows)
        ]
        lines(root / f"{name}{end}", [json.dumps(record) for record in records])
    write_filter(root)


def xml_sparse(root: Path, spelling: tuple[str, str, str] = ("trn_X.txt", "tst_X.txt", "Y.txt")) -> None:
    for name, rows, relevance in (("trn", TRAIN, RELEVANCE), ("tst", TEST, [[1.0], [1.0]])):
        body = [
            " ".join(f"{label}:{value}" for label, value in zip(labels, values, strict=True))
            for (_, labels), values in zip(rows, relevance, strict=True)
        ]
        lines(root / f"{name}_X_Y.txt", [f"{len(rows)} 3", *body])
    for name, texts in zip(spelling, ([t for t, _ in TRAIN], [t for t, _ in TEST], LABELS), strict=True):
        lines(root / name, texts)
    write_filter(root)


def dexml(root: Path) -> None:
    for name, rows, relevance in (("trn", TRAIN, RELEVANCE), ("tst", TEST, [[1.0], [1.0]])):
        lines(root / "raw" / f"{name}_X.txt", [text for text, _ in rows])
        matrix = sp.lil_matrix((len(rows), 3), dtype=np.float32)
        for row, ((_, labels), values) in enumerate(zip(rows, relevance, strict=True)):
            matrix[row, labels] = values
        sp.save_npz(root / f"Y.{name}.npz", matrix.tocsr())
    lines(root / "raw" / "Y.txt", LABELS)
    write_filter(root)


def tabular(root: Path, end: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    label_rows = [{"uid": f"L{i}", "text": text} for i, text in enumerate(LABELS)]
    tables = {"labels": label_rows}
    for name, rows in (("train", TRAIN), ("test", TEST)):
        tables[name] = [
            {"uid": f"{name}{i}", "text": text, "labels": [f"L{label}" for label in labels]}
            | ({"relevance": RELEVANCE[i] if name == "train" else [1.0] * len(labels)} if end != ".csv" else {})
            for i, (text, labels) in enumerate(rows)
        ]
    for name, rows in tables.items():
        if end == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), root / f"{name}.parquet")
        elif end.startswith(".jsonl"):
            lines(root / f"{name}{end}", [json.dumps(row) for row in rows])
        else:
            cells = [[str(v) if isinstance(v, str) else ";".join(v) for v in row.values()] for row in rows]
            lines(root / f"{name}.csv", [",".join(row) for row in [list(rows[0]), *cells]])
    write_filter(root)


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "json": (xml_json, "xml-json"),
    "json.gz": (lambda root: xml_json(root, ".json.gz"), "xml-json"),
    "sparse": (xml_sparse, "xml-sparse"),
    "sparse raw.txt": (lambda root: xml_sparse(root, ("trn_X.raw.txt", "tst_X.raw.txt", "Y.raw.txt")), "xml-sparse"),
    "sparse raw/ gz": (
        lambda root: xml_sparse(
            root, ("raw_data/train.raw.txt.gz", "raw_data/test.raw.txt.gz", "raw_data/label.raw.txt.gz")
        ),
        "xml-sparse",
    ),
    "dexml": (dexml, "dexml"),
    "parquet": (lambda root: tabular(root, ".parquet"), "tabular"),
    "jsonl": (lambda root: tabular(root, ".jsonl"), "tabular"),
    "jsonl.gz": (lambda root: tabular(root, ".jsonl.gz"), "tabular"),
    "csv": (lambda root: tabular(root, ".csv"), "tabular"),
}
