"""What is known of a pair: positive, rejected, excluded, or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import unlisted
from scipy.sparse import csr_matrix

from xmc.data.convert import convert
from xmc.data.dataset import Dataset
from xmc.data.readers import open_source
from xmc.data.targets import Targets, no_pairs, split_relevance
from xmc.errors import DataError, InputError

RELEVANCE = csr_matrix(([2.0, 0.0, 0.5, 0.0, 1.0], ([0, 0, 1, 1, 2], [1, 2, 0, 3, 3])), shape=(4, 4))


def judged() -> Dataset:
    """Two labels for the first query, one of them rejected for the second, which rejects another too."""
    return Dataset.from_lists(
        "judged",
        ["cat", "dog", "fish"],
        {"train": (["a", "b", "c"], [[0, 1], [2], []])},
        rejected={"train": [[], [1, 0, 1], []]},
        filters={"train": np.array([[0, 1], [1, 0]])},
    )


def test_a_relevance_of_zero_is_a_rejection() -> None:
    positives, rejected = split_relevance(RELEVANCE)
    assert positives.toarray().tolist() == [[0, 2, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert positives.nnz == 3
    assert positives.dtype == np.float32
    assert rejected.toarray().nonzero()[0].tolist() == [0, 1]
    assert rejected.indices.tolist() == [2, 3]
    assert rejected.dtype == bool


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_relevance_is_finite_and_not_negative(value: float) -> None:
    with pytest.raises(InputError, match="is not a finite number >= 0"):
        split_relevance(csr_matrix(([value], ([0], [0])), shape=(1, 1)))


def test_what_is_known_of_pairs() -> None:
    targets = judged().targets("train")
    assert len(targets) == 3
    assert targets.positives.toarray().tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert targets.rejected.toarray().tolist() == [[False] * 3, [True, True, False], [False] * 3]
    assert targets.positive_counts.tolist() == [1, 1, 1]
    assert targets.positive_counts.dtype == np.int64
    assert targets.truth.toarray().tolist() == [[True, False, False], [False, False, True], [False] * 3]
    assert targets.not_negative.toarray().tolist() == [[True, True, False], [True, False, True], [False] * 3]
    assert targets.judged_negative.toarray().tolist() == [[False] * 3, [False, True, False], [False] * 3]
    taken = targets.take(np.array([2, 1]))
    assert taken.truth.toarray().tolist() == targets.truth.toarray()[[2, 1]].tolist()
    assert taken.judged_negative.toarray().tolist() == targets.judged_negative.toarray()[[2, 1]].tolist()


def test_a_split_takes_its_rejected_pairs_along() -> None:
    split = judged().split("train").take(np.array([1]))
    assert split.rejected.toarray().tolist() == [[True, True, False]]
    assert split.targets().judged_negative.toarray().tolist() == [[True, True, False]]


def test_targets_refuse_contradictions() -> None:
    positives, rejected = split_relevance(RELEVANCE)
    with pytest.raises(InputError, match=r"query 0, label 1\) is positive and rejected"):
        Targets.from_pairs(positives, csr_matrix(positives.astype(bool)))
    with pytest.raises(InputError, match=r"has the value 0\.0; only pairs of a relevance above 0"):
        Targets.from_pairs(RELEVANCE.astype(np.float32), rejected)
    with pytest.raises(InputError, match="Positives are of 4 queries and 4 labels"):
        Targets.from_pairs(positives, no_pairs(4, 5))
    with pytest.raises(InputError, match="Filter pair 0"):
        Targets.from_pairs(positives, rejected, np.array([[4, 0]]))


@pytest.mark.parametrize(
    ("rejected", "message"),
    [
        ([[0], [], []], "row 0: label 0 is positive and rejected"),
        ([[], [], [3]], "row 2: rejected label 3 is outside of the 3 labels"),
    ],
)
def test_a_data_set_refuses_contradictions(rejected: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.from_lists("x", ["a", "b", "c"], {"train": (["q"] * 3, [[0], [1], [2]])}, rejected={"train": rejected})


def test_rejected_lists_are_one_for_each_text() -> None:
    with pytest.raises(InputError, match="2 texts and 1 lists of rejected labels"):
        Dataset.from_lists("x", ["a"], {"train": (["q", "r"], [[0], []])}, rejected={"train": [[]]})


def test_rejected_labels_are_saved_and_count_in_the_fingerprint(tmp_path: Path) -> None:
    data = judged()
    data.save(tmp_path / "judged")
    again = Dataset.load(tmp_path / "judged")
    assert again.properties["format"] == 2
    assert (again.split("train").rejected != data.split("train").rejected).nnz == 0
    assert again.fingerprint == data.fingerprint
    again.properties.pop("fingerprint")
    assert Dataset(again.properties, again.directory, {}).fingerprint == data.fingerprint
    converted = convert(open_source(tmp_path / "judged"), tmp_path / "converted").dataset
    assert converted.properties["format"] == 2
    assert converted.fingerprint == data.fingerprint
    assert (converted.split("train").rejected != data.split("train").rejected).nnz == 0

    lists = {"train": (["a", "b", "c"], [[0, 1], [2], []])}
    filters = {"train": np.array([[0, 1], [1, 0]])}
    without = Dataset.from_lists("judged", ["cat", "dog", "fish"], lists, filters=filters)
    assert without.fingerprint != data.fingerprint


def test_without_rejected_labels_format_and_fingerprint_are_as_before(tmp_path: Path) -> None:
    """The fingerprint of format 1, written down before there was a column for rejected labels."""
    data = Dataset.from_lists(
        "plain", ["cat", "dog"], {"train": (["a", "b"], [[0, 1], []])}, rejected={"train": [[], []]}
    )
    assert data.fingerprint == "5900687cb9a2e79ee609355a15a5f6389fc132fd34024e8a1dd83898c8292394"
    data.save(tmp_path)
    assert json.loads((tmp_path / "dataset.json").read_text())["format"] == 1
    shipped = Dataset.load("wordnet-8k")
    properties = {name: value for name, value in shipped.properties.items() if name != "fingerprint"}
    assert Dataset(properties, shipped.directory, {}).fingerprint == shipped.properties["fingerprint"]


def test_a_file_of_format_1_with_relevances_of_zero_is_read(tmp_path: Path) -> None:
    """Such files were written by conversions before; their pairs of relevance 0 were positives then."""
    Dataset.from_lists("old", ["cat", "dog"], {"train": (["a"], [[0, 1]])}).save(tmp_path)
    file = unlisted(tmp_path) / "queries-train.parquet"
    table = pq.read_table(file).drop_columns(["relevance", "rejected"])
    pq.write_table(table.append_column("relevance", pa.array([[1.0, 0.0]], pa.list_(pa.float32()))), file)
    split = Dataset.load(tmp_path).split("train")
    assert split.positives.toarray().tolist() == [[1, 0]]
    assert split.positives.nnz == 1
    assert split.rejected.toarray().tolist() == [[False, True]]


def test_a_format_that_is_not_known_is_refused(tmp_path: Path) -> None:
    judged().save(tmp_path)
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 4}))
    with pytest.raises(DataError, match="is not of format 1, 2 or 3 with"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize("column", ["labels", "relevance", "rejected"])
def test_a_null_in_a_list_is_refused_by_its_row(column: str, tmp_path: Path) -> None:
    judged().save(tmp_path)
    file = unlisted(tmp_path) / "queries-train.parquet"
    table = pq.read_table(file)
    field = table.schema.field(column)
    lists = [[0.5, 1], [None], None] if column == "relevance" else [[2] if column == "rejected" else [0, 1], [None], []]
    pq.write_table(table.set_column(table.column_names.index(column), field, pa.array(lists, field.type)), file)
    with pytest.raises(DataError, match=r"queries-train.parquet, row 1: a .* is null; take it out"):
        Dataset.load(tmp_path).split("train")
