"""Targets: evidence beside labels, as files with uids that a conversion reads, and as tables of a data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from worlds import colours

from fuzzing.conversions import require_sound, write_there
from fuzzing.targets import Case, Target, register
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.evidence import EVIDENCE, CandidateSets, LabelBags, Votes
from xmc.data.named.evidence_files import EvidencedSource
from xmc.data.readers import open_source
from xmc.data.validate import validate


def write_evidence_files(folder: Path) -> None:
    """A source, some of its queries not labelled, and a file of each kind of evidence."""
    rows = ["q1,a glass,wine,", "q2,a pint,beer,true", "q3,some,,false", "q4,more,,0"]
    (folder / "train.csv").write_text("\n".join(["uid,text,labels,labelled", *rows, ""]))
    (folder / "votes.csv").write_text("query,label,source,value\nq3,wine,rule,1\nq3,beer,crowd,-0.5\nq1,beer,crowd,0\n")
    sets = [{"query": "q3", "labels": ["wine", "beer"]}, {"query": "q4", "labels": ["beer"], "least": 0, "most": 1}]
    (folder / "sets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sets))
    bags = {
        "queries": [["q3", "q4"], ["q1", "q2"]],
        "labels": [["wine", "beer"], ["wine"]],
        "counts": [[1, 0.5], [1.0]],
    }
    pq.write_table(pa.table(bags), folder / "bags.parquet")


def read_evidence_files(case: Case) -> None:
    """A conversion of the source with them."""
    names = {"votes": "votes.csv", "sets": "sets.jsonl", "bags": "bags.parquet"}
    files = {kind: case.folder / name for kind, name in names.items()}

    def source() -> EvidencedSource:
        return EvidencedSource(open_source(case.folder / "train.csv"), files)

    if case.chance.random() < 0.25:
        list(validate(source()))
    there = case.place / "there"
    policy = case.chance.choice(["error", "drop"])
    data = convert(source(), there, on_bad_row=policy, overwrite=True).dataset
    require_sound(data, there)
    require_fitting(data)


def write_evidence_tables(folder: Path) -> None:
    """A data set with a table of each kind of evidence."""
    base = colours()
    labelled = np.arange(400) < 300
    known = base.split("train").positives.multiply(labelled[:, None]).tocsr().astype(np.float32)
    known.eliminate_zeros()
    rows = np.arange(300, 400)
    votes = Votes.from_arrays(
        np.tile(rows, 2), np.tile(rows % 12, 2), ["a"] * 100 + ["b"] * 100, np.linspace(-1, 1, 200)
    )
    sets = CandidateSets.from_lists(rows[:20], [[1, 2, 3]] * 20, [1] * 20, [2] * 20)
    bags = LabelBags.from_lists(rows.reshape(-1, 4).tolist(), [[0, 5]] * 25, [[1, 2]] * 25)
    given = {"votes": votes, "candidate_sets": sets, "label_bags": bags}
    base.with_evidence("train", positives=known, labelled=labelled, **given).save(folder)


def read_evidence_tables(case: Case) -> None:
    """All evidence, what is left of it for some rows, and a copy."""
    data = Dataset.load(case.folder)
    require_fitting(data)
    if case.chance.random() < 0.1:
        list(validate(open_source(case.folder)))
        shutil.rmtree(case.place / "copy", ignore_errors=True)
        copy = convert(open_source(case.folder), case.place / "copy").dataset
        assert copy.evidence().keys() == data.evidence().keys(), "evidence is lost"


def require_fitting(data: Dataset) -> None:
    """Evidence names queries and labels that there are, and what is taken of it does too."""
    queries, labels = len(data.split("train")), len(data.labels)
    rows = np.arange(queries)[::-1][: queries // 2]
    for name, evidence in data.evidence().items():
        kind = EVIDENCE[name]
        kind.from_table(evidence.table(), queries, labels, name)
        kind.from_table(evidence.take(rows).table(), len(rows), labels, name)
    labelled, split = data.labelled(), data.split("train")
    assert labelled is None or not split.positives[~labelled].nnz, "a query that is not labelled has labels"


register(Target("layout with evidence", write_evidence_files, read_evidence_files, prepare=write_there))
register(Target("data set evidence", write_evidence_tables, read_evidence_tables, slow=1000))
register(Target("data set evidence repaired", write_evidence_tables, read_evidence_tables, repaired=True, slow=1000))
