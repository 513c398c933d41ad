"""What people say of predictions: judgements in a data set, the metrics that they give, and major mistakes that are saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import unlisted

from xmc.batch.evaluation import evaluate_files
from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.judgements import JUDGEMENTS
from xmc.data.readers.canonical import CanonicalSource
from xmc.data.seal import Sealed, seal
from xmc.data.sources import TabularColumns
from xmc.errors import DataError, InputError, StoreError
from xmc.evaluation.judged import judge
from xmc.evaluation.major_mistakes import MajorMistakes
from xmc.evaluation.predicted import Predicted

Judged = list[tuple[str, str, str]]
LABELS = 12


def data_set(positives: list[list[int]], judged: Judged | None, **options: object) -> Dataset:
    """Queries q0, q1, ... and labels L0 to L11."""
    return Dataset.from_lists(
        "judged",
        [f"label {label}" for label in range(LABELS)],
        {"test": ([f"text {query}" for query in range(len(positives))], positives)},
        label_uids=[f"L{label}" for label in range(LABELS)],
        query_uids={"test": [f"q{query}" for query in range(len(positives))]},
        judged=None if judged is None else {"test": judged},
        **options,  # type: ignore[arg-type]
    )


def predict(data: Dataset, *rankings: list[int]) -> Predicted:
    """Rankings of label rows, best first, of one length."""
    places = np.array(rankings, np.int64)
    scores = np.broadcast_to(-np.arange(places.shape[1], dtype=np.float32), places.shape)
    return Predicted(data.labels.uids, places, places, np.ascontiguousarray(scores))


def values(data: Dataset, predicted: Predicted, ks: tuple[int, ...] = (1, 2)) -> dict[str, float]:
    judgements = data.judgements()
    assert judgements is not None
    return judge(predicted, judgements, data.targets("test"), ks).values


def test_every_label_that_is_right_counts() -> None:
    """By hand, three of four queries judged."""
    judged = [
        ("q0", "L5", "correct"),  # not in the truth
        ("q0", "L1", "wrong"),  # in the truth
        ("q1", "L6", "unclear"),
        ("q2", "L7", "wrong"),
    ]
    data = data_set([[0, 1], [2], [3, 4], [9]], judged)
    found = values(data, predict(data, [5, 1, 0], [6, 2, 8], [7, 3, 4], [9, 0, 1]))
    # q0: right are 0 and 5, the first is right, and of the first two one. q1: 6 is passed over, then 2, right, one of one.
    # q2: right are 3 and 4, the first is wrong, of the first two one is right.
    assert found == pytest.approx(
        {
            "top-1": 100 * 2 / 3,
            "RPrec": 100 * (1 / 2 + 1 + 1 / 2) / 3,
            "judged@1": 100.0,
            "judged@2": 100 * (2 + 1 + 1) / 6,
        }
    )


@pytest.mark.parametrize("seed", range(15))
def test_against_sets(seed: int) -> None:
    random = np.random.default_rng(seed)
    positives = [sorted(random.choice(LABELS, random.integers(1, 4), replace=False).tolist()) for _ in range(20)]
    cells = random.choice(20 * LABELS, 60, replace=False)
    words = random.choice(JUDGEMENTS, 60)
    said = {(int(cell // LABELS), int(cell % LABELS)): str(word) for cell, word in zip(cells, words, strict=True)}
    excluded = {(int(query), int(label)) for query, label in random.integers(0, [20, LABELS], (15, 2))}
    rows = [(f"q{query}", f"L{label}", word) for (query, label), word in said.items()]
    data = data_set(positives, [*rows, rows[0]], filters={"test": np.array(sorted(excluded))})
    rankings = np.stack([random.permutation(LABELS) for _ in range(20)])
    found = values(data, predict(data, *rankings.tolist()), (1, 3))
    top, r_precision, coverage = [], [], []
    for query in sorted({query for query, _ in said}):
        about = {label: word for (row, label), word in said.items() if row == query}
        left_out = {label for row, label in excluded if row == query}
        right = {label for label in positives[query] if about.get(label, "correct") == "correct"}
        right = (right | {label for label, word in about.items() if word == "correct"}) - left_out
        shown = [label for label in rankings[query].tolist() if label not in left_out]
        clear = [label for label in shown if about.get(label) != "unclear"]
        coverage.append(sum(label in about for label in shown[:3]) / 3)
        if right:
            top.append(clear[0] in right)
            r_precision.append(len(right.intersection(clear[: len(right)])) / len(right))
    assert found["top-1"] == pytest.approx(100 * np.mean(top))
    assert found["RPrec"] == pytest.approx(100 * np.mean(r_precision))
    assert found["judged@3"] == pytest.approx(100 * np.mean(coverage))


def test_unclear_neither_helps_nor_hurts_and_all_correct_is_all() -> None:
    rankings = ([0, 1, 2], [3, 4, 5])
    without = data_set([[1], [9]], [("q0", "L2", "wrong"), ("q1", "L5", "wrong")])
    unclear = data_set([[1], [9]], [("q0", "L0", "unclear"), ("q0", "L2", "wrong"), ("q1", "L5", "wrong")])
    assert values(without, predict(without, *rankings))["top-1"] == 0
    assert values(unclear, predict(unclear, *rankings))["top-1"] == 50
    later = data_set([[1], [9]], [("q0", "L8", "unclear"), ("q0", "L2", "wrong"), ("q1", "L5", "wrong")])
    for name in ("top-1", "RPrec"):
        assert values(later, predict(later, *rankings))[name] == values(without, predict(without, *rankings))[name]
    correct = data_set(
        [[1], [9]], [(f"q{query}", f"L{label}", "correct") for query, row in enumerate(rankings) for label in row]
    )
    found = values(correct, predict(correct, *rankings), (1, 2, 3))
    assert {name: found[name] for name in found if name != "RPrec"} == dict.fromkeys(
        ("top-1", "judged@1", "judged@2", "judged@3"), 100.0
    )


def test_queries_without_a_right_label_are_counted_apart() -> None:
    data = data_set([[0], [1]], [("q0", "L0", "wrong"), ("q1", "L1", "correct")])
    judgements = data.judgements()
    assert judgements is not None
    assert len(judgements) == 2
    found = judge(predict(data, [0, 2], [1, 2]), judgements, data.targets("test"))
    assert (found.queries, found.without) == (2, 1)
    assert found.values["top-1"] == 100
    assert found.to_dict()["pairs"] == {"correct": 1, "unclear": 0, "wrong": 1}


# ------------------------------------------------------------------------------------------------------- in a data set


def test_a_data_set_carries_judgements(tmp_path: Path) -> None:
    judged = [("q0", "L3", "wrong"), ("q1", "L1", "correct")]
    data, plain = data_set([[0], [1]], judged), data_set([[0], [1]], None)
    assert plain.judgements() is None
    assert data.fingerprint != plain.fingerprint
    data.save(tmp_path / "data")
    data.save(tmp_path / "data", overwrite=True)
    again = Dataset.load(tmp_path / "data")
    assert again.fingerprint == data.fingerprint
    found = again.judgements()
    assert found is not None
    assert found.counts == {"correct": 1, "unclear": 0, "wrong": 1}
    assert found.wrong.nonzero()[1].tolist() == [3]
    # A person puts the file beside a data set that has none; nothing of xmc overwrites it.
    plain.save(tmp_path / "plain")
    pq.write_table(pq.read_table(tmp_path / "data" / "judged-test.parquet"), tmp_path / "plain" / "judged-test.parquet")
    with pytest.raises(DataError, match=r"judged-test.parquet is not among .* list it with `xmc data seal .*plain`"):
        Dataset.load(tmp_path / "plain")
    assert seal(tmp_path / "plain") == Sealed(("judged-test.parquet",), (), ())
    beside = Dataset.load(tmp_path / "plain")
    assert beside.judgements() is not None
    assert beside.fingerprint == plain.fingerprint
    with pytest.raises(StoreError, match=r"holds judged-test.parquet, which would be lost"):
        plain.save(tmp_path / "plain", overwrite=True)


def test_conversion_carries_judgements_of_what_it_keeps(tmp_path: Path) -> None:
    data = data_set([[0], [1]], [("q0", "L3", "wrong"), ("q1", "L1", "correct")])
    data.save(tmp_path / "data")
    done = convert(CanonicalSource(tmp_path / "data", TabularColumns()), tmp_path / "whole").dataset
    assert done.fingerprint == data.fingerprint
    whole = done.judgements()
    assert whole is not None
    assert len(whole) == 2
    table = pq.read_table(unlisted(tmp_path / "data") / "queries-test.parquet")
    bad = table.set_column(2, "labels", pa.array([[0], [99]], pa.list_(pa.int32())))
    pq.write_table(bad, tmp_path / "data" / "queries-test.parquet")
    part = convert(CanonicalSource(tmp_path / "data", TabularColumns()), tmp_path / "part", on_bad_row="drop").dataset
    left = part.judgements()
    assert left is not None
    assert left.counts == {"correct": 0, "unclear": 0, "wrong": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("q0", "L0", "correct"), ("q9", "L0", "wrong")], r"row 1: query is 'q9'; there is no such query uid"),
        ([("q0", "L99", "wrong")], r"judged-test.parquet, row 0: label is 'L99'; there is no such label uid"),
        ([("q0", "L0", "Wrong")], r"row 0: judgement is 'Wrong'; it must be correct, unclear, wrong"),
        (
            [("q0", "L0", "wrong"), ("q1", "L1", "wrong"), ("q0", "L0", "correct")],
            r"row 2: the pair of query 'q0' and label 'L0' is wrong and correct; decide for one",
        ),
    ],
)
def test_what_is_no_judgement(rows: Judged, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_set([[0], [1]], rows)


def test_judgements_are_of_a_split_that_is_there() -> None:
    with pytest.raises(InputError, match=r"judged names the split 'dev', which is not in splits \(test\)"):
        Dataset.from_lists("d", ["a"], {"test": (["x"], [[0]])}, judged={"dev": []})


def test_written_predictions_are_judged_too(tmp_path: Path) -> None:
    data = data_set([[0, 1], [1]], [("q0", "L3", "correct"), ("q1", "L5", "wrong")])
    lists = {"uid": ["q0", "q1"], "labels": [["L3", "L0"], ["L5", "L1"]], "scores": [[2.0, 1.0], [2.0, 1.0]]}
    pq.write_table(pa.table(lists), tmp_path / "lists.parquet")
    judged = evaluate_files(tmp_path / "lists.parquet", data, metrics="p", k=[1, 2]).judged
    assert judged is not None
    # q0 has three right labels, so that lists of two are too short for R-precision.
    assert judged.values == {"top-1": 50.0, "judged@1": 100.0, "judged@2": 50.0}
    assert evaluate_files(tmp_path / "lists.parquet", data_set([[0, 1], [1]], None)).judged is None


# ------------------------------------------------------------------------------------------------------ major mistakes


def test_major_mistakes_are_saved_and_later_runs_measured(tmp_path: Path) -> None:
    judged = [("q0", "L5", "wrong"), ("q1", "L6", "wrong"), ("q2", "L7", "wrong"), ("q3", "L8", "unclear")]
    data = data_set([[0], [1], [2], [3], [4]], judged, rejected={"test": [[], [], [], [9], []]})
    first = predict(data, [5, 0], [6, 1], [7, 2], [8, 9], [10, 4])
    # q3: the unclear label is passed over, and the rejected one behind it is a major mistake; q4's is only not true.
    MajorMistakes.from_predictions(first, data, "test").save(tmp_path / "major.parquet")
    table = pq.read_table(tmp_path / "major.parquet")
    assert table.select(["query", "label"]).to_pylist() == [
        {"query": f"q{query}", "label": label} for query, label in enumerate(("L5", "L6", "L7", "L9"))
    ]
    assert table["label_text"].to_pylist() == ["label 5", "label 6", "label 7", "label 9"]
    mistakes = MajorMistakes.load(tmp_path / "major.parquet")
    same = mistakes.repeated(first, data, "test")
    assert (same.mistakes, same.repeated, same.right, same.other, same.absent) == (4, 4, 0, 0, 0)
    later = predict(data, [5, 0], [1, 6], [11, 2], [3, 9], [10, 4])
    found = mistakes.repeated(later, data, "test")
    assert found.to_dict() == {"mistakes": 4, "repeated": 1, "right": 2, "other": 1, "absent": 0}
    assert found.sentence() == (
        "Of 4 major mistakes, 1 are repeated (25.0%); a right label is first in 2, another wrong one in 1."
    )
    fewer = data_set([[0], [1]], None)
    assert mistakes.repeated(predict(fewer, [5, 0], [6, 1]), fewer, "test").absent == 2


def test_what_is_no_slice(tmp_path: Path) -> None:
    data = data_set([[0], [1]], [("q0", "L0", "correct")])
    predicted = predict(data, [5, 0], [6, 1])
    with pytest.raises(DataError, match="No pair of the split 'test' of 'judged' is judged wrong or rejected"):
        MajorMistakes.from_predictions(predicted, data, "test")
    pq.write_table(pa.table({"query": ["x"], "label": ["L0"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="None of the 1 mistakes is of a query of the split 'test'"):
        MajorMistakes.load(tmp_path / "other.parquet").repeated(predicted, data, "test")
    pq.write_table(pa.table({"query": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="cannot be read as major mistakes, columns query and label"):
        MajorMistakes.load(tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"name the file slice.parquet, not slice.csv"):
        MajorMistakes.load(_written(tmp_path)).save(tmp_path / "slice.csv")


def _written(folder: Path) -> Path:
    pq.write_table(pa.table({"query": ["q0"], "label": ["L5"]}), folder / "slice.parquet")
    return folder / "slice.parquet"
