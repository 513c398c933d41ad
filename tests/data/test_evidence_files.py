"""Evidence beside a source: files that name queries and labels by uid, converted, cleaned, validated, inspected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import xmc
from layouts import lines

from xmc.data.cleaning import CleanedSource, LabelCleaning
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.evidence import CandidateSets, Evidence, LabelBags, Votes
from xmc.data.inspect import inspect
from xmc.data.named.evidence_files import EvidencedSource
from xmc.data.readers import open_source
from xmc.data.seal import seal
from xmc.data.validate import validate
from xmc.errors import ConfigError, DataError, StoreError

TRAIN = ["uid,text,labels,labelled", 'q1,a glass,"Wine,Red",', "q2,a pint,beer,yes", "q3,some,,false", "q4,more,,0"]
VOTES = ["query,label,source,value", "q3,Wine,rule,1", "q3,beer,crowd,-0.5", "q1,beer,crowd,0"]
SETS = [{"query": "q3", "labels": ["Wine", "beer"]}, {"query": "q4", "labels": ["Red"], "least": 0, "most": 1}]
BAGS = {"queries": [["q3", "q4"], ["q2", "q1"]], "labels": [["Wine", "beer"], ["Red"]], "counts": [[1, 0.5], [0.0]]}


def files(folder: Path) -> dict[str, Path]:
    """A source in `source`, and beside it a file of each kind of evidence."""
    lines(folder / "source" / "train.csv", TRAIN)
    lines(folder / "votes.csv", VOTES)
    lines(folder / "sets.jsonl", [json.dumps(row) for row in SETS])
    pq.write_table(pa.table(BAGS), folder / "bags.parquet")
    return {"votes": folder / "votes.csv", "sets": folder / "sets.jsonl", "bags": folder / "bags.parquet"}


def evidenced(folder: Path) -> EvidencedSource:
    beside = files(folder)
    return EvidencedSource(open_source(folder / "source"), beside)


def plain(evidence: Evidence | None) -> list[dict[str, object]]:
    assert evidence is not None
    rows: list[dict[str, object]] = evidence.table().to_pylist()
    return rows


def test_files_name_queries_and_labels_by_uid(tmp_path: Path) -> None:
    data = convert(evidenced(tmp_path), tmp_path / "out").dataset
    assert data.labels.uids.to_pylist() == ["Red", "Wine", "beer"]
    assert data.labelled().tolist() == [True, True, False, False]
    assert plain(data.votes()) == [
        {"query": 0, "label": 2, "source": "crowd", "value": 0.0},
        {"query": 2, "label": 1, "source": "rule", "value": 1.0},
        {"query": 2, "label": 2, "source": "crowd", "value": -0.5},
    ]
    assert plain(data.candidate_sets()) == [
        {"query": 2, "labels": [1, 2], "least": 1, "most": 2},
        {"query": 3, "labels": [0], "least": 0, "most": 1},
    ]
    assert plain(data.label_bags()) == [
        {"queries": [2, 3], "labels": [1, 2], "counts": [1.0, 0.5]},
        {"queries": [0, 1], "labels": [0], "counts": [0.0]},
    ]
    again = convert(open_source(tmp_path / "out"), tmp_path / "again").dataset
    assert again.fingerprint == data.fingerprint
    assert again.properties["format"] == 3


@pytest.mark.slow
def test_the_options_of_the_command_are_these_files(tmp_path: Path) -> None:
    wanted = convert(evidenced(tmp_path), tmp_path / "out").dataset
    options = [part for kind, file in files(tmp_path).items() for part in (f"--{kind}", file)]
    done = xmc("data", "convert", tmp_path / "source", tmp_path / "out", *options, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert Dataset.load(tmp_path / "out").fingerprint == wanted.fingerprint
    said = xmc("data", "inspect", tmp_path / "out").stdout
    assert "votes on train of crowd: 2, 0.0% of them for a label" in said
    assert "candidate sets of train: 2, of 3 labels together" in said
    assert "bags of train: 2, of 4 queries together" in said
    assert "50.0%" in said


def test_evidence_that_is_there_is_not_lost(tmp_path: Path) -> None:
    convert(evidenced(tmp_path), tmp_path / "out")
    with pytest.raises(StoreError, match=r"holds bags-train.parquet, which would be lost"):
        convert(open_source(tmp_path / "source"), tmp_path / "out", overwrite=True)
    assert Dataset.load(tmp_path / "out").votes() is not None
    with pytest.raises(ConfigError, match="has votes of train already"):
        EvidencedSource(open_source(tmp_path / "out"), {"votes": tmp_path / "votes.csv"})


BAD = {
    "votes.csv, line 5: there is no query 'q9'": ("votes.csv", "q9,Wine,rule,1", "unknown query"),
    "votes.csv, line 5: there is no label 'Win'": ("votes.csv", "q1,Win,rule,1", "unknown label"),
    "votes.csv, line 5: the value 2 is not in": ("votes.csv", "q1,Wine,rule,2", "value out of range"),
    "votes.csv, line 5: value is null": ("votes.csv", "q1,Wine,rule,", "null value"),
    "votes.csv, line 5: the relevance 'x' is no number": ("votes.csv", "q1,Wine,rule,x", "bad relevance"),
    "votes.csv, line 5: there is more than one number": ("votes.csv", 'q1,Wine,rule,"1,1"', "several values"),
    "votes.csv, line 5: source is null": ("votes.csv", "q1,Wine,,1", "source without a name"),
    "votes.csv, line 5: the source 'rule' votes a second time on query 'q3' and label 'Wine'; keep one vote": (
        "votes.csv",
        "q3,Wine,rule,1",
        "second vote of a source",
    ),
    "sets.jsonl, line 3: label 'Wine' is there twice": (
        "sets.jsonl",
        '{"query": "q1", "labels": ["Wine", "Wine"]}',
        "label twice",
    ),
    "sets.jsonl, line 3: the least must be a whole number from 0 to the number of labels, but is 0.5": (
        "sets.jsonl",
        '{"query": "q1", "labels": ["Wine"], "least": 0.5}',
        "bad least",
    ),
    "sets.jsonl, line 3: there is no label 'x'": (
        "sets.jsonl",
        '{"query": "q1", "labels": ["Wine", "x"]}',
        "unknown label",
    ),
    "sets.jsonl, line 3: between 2 and 1 of its 1 labels": (
        "sets.jsonl",
        '{"query": "q1", "labels": ["Wine"], "least": 2}',
        "numbers that do not fit",
    ),
    "sets.jsonl, line 3: .*null": ("sets.jsonl", '{"query": null, "labels": ["Wine"]}', "null query"),
}


@pytest.mark.parametrize("sentence", BAD)
def test_a_bad_row_is_refused_or_left_out(sentence: str, tmp_path: Path) -> None:
    source = evidenced(tmp_path)
    name, row, reason = BAD[sentence]
    if sentence.startswith("votes.csv, line 5: source is null"):
        sentence = "votes.csv, line 5: (source is null|the source has no name)"
    with (tmp_path / name).open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=sentence):
        convert(source, tmp_path / "out")
    found = [defect for defect in validate(source) if defect.severity == "error"]
    assert len(found) == 1
    done = convert(source, tmp_path / "out", on_bad_row="drop")
    assert sum(done.dropped.values()) == done.dropped[found[0].reason] == 1
    assert found[0].reason in (reason, "null source")
    assert {kind: len(there) for kind, there in done.dataset.evidence().items()} == {"votes": 3, "sets": 2, "bags": 2}


def test_evidence_about_dropped_rows_goes_with_them(tmp_path: Path) -> None:
    source = evidenced(tmp_path)
    lines(tmp_path / "source" / "train.csv", [*TRAIN[:3], "q3,some,beer,false", TRAIN[4]])  # labels, and not labelled
    with pytest.raises(DataError, match="line 4: the query 'q3' has labels, but labelled says"):
        convert(source, tmp_path / "out")
    done = convert(source, tmp_path / "out", on_bad_row="drop")
    assert done.dropped == {
        "labels of a query that is not labelled": 1,
        "row of votes of a dropped query or label": 2,
        "row of sets of a dropped query or label": 1,
        "row of bags of a dropped query or label": 1,
    }
    assert plain(done.dataset.label_bags()) == [{"queries": [0, 1], "labels": [0], "counts": [0.0]}]
    assert plain(done.dataset.candidate_sets()) == [{"query": 2, "labels": [0], "least": 0, "most": 1}]


def test_evidence_follows_labels_that_are_cleaned(tmp_path: Path) -> None:
    source = evidenced(tmp_path)
    with (tmp_path / "source" / "train.csv").open("a") as file:
        file.write("q5,again,wine,\n")
    with (tmp_path / "votes.csv").open("a") as file:
        file.write("q3,wine,rule,0.5\n")
    with (tmp_path / "sets.jsonl").open("a") as file:
        file.write('{"query": "q4", "labels": ["wine", "Wine", "beer"], "least": 2}\n')
    cleaned = convert(CleanedSource(source, LabelCleaning(lowercase=True)), tmp_path / "out").dataset
    uids = cleaned.labels.uids.to_pylist()
    assert sorted(uids) == ["beer", "red", "wine"]
    wine, beer = uids.index("wine"), uids.index("beer")
    votes = cleaned.votes()
    assert {(row["query"], row["label"], row["source"]): row["value"] for row in plain(votes)} == {
        (0, beer, "crowd"): 0.0,
        (2, wine, "rule"): 1.0,  # of 1 and 0.5, the greater
        (2, beer, "crowd"): -0.5,
    }
    assert plain(cleaned.candidate_sets())[-1] == {"query": 3, "labels": sorted([wine, beer]), "least": 1, "most": 2}
    rare = convert(CleanedSource(source, LabelCleaning(min_count=2)), tmp_path / "rare").dataset
    assert len(rare.labels) == 0
    assert rare.evidence() == {}


def test_files_are_about_train(tmp_path: Path) -> None:
    beside = files(tmp_path)
    (tmp_path / "source" / "train.csv").rename(tmp_path / "source" / "test.csv")
    with pytest.raises(ConfigError, match="--votes is about the split train, and source has none"):
        EvidencedSource(open_source(tmp_path / "source"), beside)
    (tmp_path / "votes.csv").write_text("query,label,value\n")
    (tmp_path / "source" / "test.csv").rename(tmp_path / "source" / "train.csv")
    with pytest.raises(DataError, match=r"votes.csv has no column 'source'"):
        convert(EvidencedSource(open_source(tmp_path / "source"), beside), tmp_path / "out")


@pytest.mark.parametrize(("written", "known"), [("true", True), ("No", False), ("", True), (" 1 ", True)])
def test_whether_a_query_is_labelled_is_a_word(written: str, known: bool, tmp_path: Path) -> None:
    lines(tmp_path / "train.csv", ["uid,text,labels,labelled", "q0,a,b,", f'q1,c,,"{written}"'])
    data = convert(open_source(tmp_path), tmp_path / "out").dataset
    assert (data.labelled() is None) == known
    lines(tmp_path / "train.csv", ["uid,text,labels,labelled", "q0,a,b,maybe"])
    with pytest.raises(DataError, match="line 2: 'maybe' is neither true nor false"):
        convert(open_source(tmp_path), tmp_path / "none")


def test_whether_a_query_is_labelled_is_a_column_of_tables_in_memory(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "labels": [["x"], []], "known": [True, False]})
    assert Dataset.from_arrow(table, labelled="known").labelled().tolist() == [True, False]
    numbers = table.set_column(2, "labelled", pa.array([None, 0]))
    assert Dataset.from_arrow(numbers).labelled().tolist() == [True, False]
    Dataset.from_arrow(numbers).save(tmp_path / "data")
    assert not list(validate(open_source(tmp_path / "data")))


def contradicted() -> Dataset:
    """Evidence that does not fit the labels."""
    rng = np.random.default_rng(0)
    pairs = np.stack([np.repeat(np.arange(6), 5), np.tile(np.arange(5), 6)], axis=1)
    said = {"one": rng.choice([-1, 1], 30), "same": np.full(30, 0.5), "other": rng.choice([-1, 1], 30)}
    said["copy"] = said["one"] * 0.25
    columns = [
        (*pair, name, value)
        for name, values in said.items()
        for pair, value in zip(pairs.tolist(), values, strict=True)
    ]
    queries, labels, sources, values = zip(*columns, strict=True)
    return Dataset.from_lists(
        "contradicted",
        [f"label {row}" for row in range(5)],
        {"train": ([f"query {row}" for row in range(6)], [[0], [1, 2], [1], [], [], []])},
        rejected={"train": [[], [], [], [0, 3], [], []]},
        votes={"train": Votes.from_arrays(queries, labels, sources, values)},
        candidate_sets={
            "train": CandidateSets.from_lists(
                [3, 0, 1, 4], [[0, 3, 4], [3, 4], [1, 2, 3], [0, 1]], [2, 1, 1, 1], [2, 1, 1, 1]
            )
        },
        label_bags={"train": LabelBags.from_lists([[4, 5], [1, 2]], [[1], [2, 1]], [[0], [1, 1.5]])},
    )


def test_contradictions_are_warnings_that_name_the_row(tmp_path: Path) -> None:
    contradicted().save(tmp_path / "data")
    found = [defect for defect in validate(open_source(tmp_path / "data")) if defect.reason != "query without labels"]
    assert {defect.severity for defect in found} == {"warning"}
    said = {f"{defect.file.name} {defect.line}: {defect.reason}": defect.message for defect in found}
    assert set(said) == {
        "sets-train.parquet 1: set without a given label",
        "sets-train.parquet 2: set with more given labels than true ones",
        "sets-train.parquet 3: set with too many rejected labels",
        "bags-train.parquet 2: bag with more given labels than its count",
        "votes-train.parquet 1: source that never disagrees",
        "votes-train.parquet 4: source whose votes are all alike",
    }
    assert (
        "label 1 counts 1.5 in the bag, but 2 of its queries"
        in said["bags-train.parquet 2: bag with more given labels than its count"]
    )
    assert "'copy' never disagrees with 'one'," in said["votes-train.parquet 1: source that never disagrees"]
    assert (
        "all 30 votes of the source 'same' are 0.5" in said["votes-train.parquet 4: source whose votes are all alike"]
    )


def test_contradictions_of_files_are_by_uid(tmp_path: Path) -> None:
    source = evidenced(tmp_path)
    with (tmp_path / "sets.jsonl").open("a") as file:
        file.write('{"query": "q2", "labels": ["Wine", "Red"]}\n')
    (tmp_path / "source" / "train.csv").write_text("\n".join([*TRAIN, 'q5,"a glass, too",Red,', ""]))
    bags = {"queries": [["q1", "q5"]], "labels": [["Red"]], "counts": [[1]]}
    pq.write_table(pa.table(bags), tmp_path / "bags.parquet")
    said = [defect.message for defect in validate(source) if defect.reason != "query without labels"]
    assert any(
        "the set of query 'q2' has none of the labels that the query is given, such as label 'beer'." in one
        for one in said
    )
    assert any("label 'Red' counts 1 in the bag, but 2 of its queries are given it." in one for one in said)


def test_inspection_counts_evidence() -> None:
    seen = inspect(contradicted())
    assert seen.votes["train"]["same"] == (30, 1.0)
    assert (seen.candidate_sets["train"], seen.label_bags["train"]) == ((4, 10), (2, 4))
    assert seen.labelled == {"train": 1.0}


def test_a_table_that_somebody_put_there_is_sealed(tmp_path: Path) -> None:
    data = contradicted()
    nothing = {"votes": data.votes().where(np.zeros(len(data.votes()), bool))}
    without = data.with_evidence("train", **nothing)
    without.save(tmp_path / "data")
    pq.write_table(data.votes().table(), tmp_path / "data" / "votes-train.parquet")
    with pytest.raises(DataError, match="not among the files"):
        Dataset.load(tmp_path / "data")
    assert seal(tmp_path / "data").added == ("votes-train.parquet",)
    assert Dataset.load(tmp_path / "data").fingerprint == data.fingerprint
    bad = pa.table({**data.votes().table().to_pydict(), "value": [9.0] * 120}, schema=Votes.schema)
    pq.write_table(bad, tmp_path / "data" / "votes-train.parquet")
    with pytest.raises(DataError, match=r"votes-train.parquet, row 0: the value 9 is not in"):
        seal(tmp_path / "data")
