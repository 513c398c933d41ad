"""Wrong predictions, each sorted into the first kind that it fits, on constructed queries; and the major ones, saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from worlds import tiny_config

from xmc.data.dataset import Dataset
from xmc.data.seal import seal
from xmc.encoders.dual import build_encoder, unit_rows
from xmc.errors import DataError
from xmc.evaluation.major_mistakes import MajorMistakes
from xmc.evaluation.predicted import Predicted
from xmc.report import write_report
from xmc.report.hierarchy import Hierarchy
from xmc.report.mistakes import Judge, count_causes
from xmc.report.run import ReportedRun
from xmc.report.sorting import RARE, WRONG_CAUSES
from xmc.report.task import Task
from xmc.search.retriever import Retriever

CASES = {  # query: predicted first, true, kind, clause
    "query a": ("Sailing-Boats", "sailing boat", "near-duplicate", "almost the text of the true label “sailing boat”"),
    "query b": (
        "vessel",
        "ship",
        "near-duplicate",
        "its embedding is nearly that of the true label “ship” (cosine 0.99)",
    ),
    "query c": ("dog", "hunting dog", "broader", "broader than the true label “hunting dog”"),
    "query d": ("red wine glass", "glass, wine", "narrower", "narrower than the true label “glass, wine”"),
    "query e": ("animal", "cat", "broader", "broader than the true label “cat”"),
    "query f": ("poodle", "canine", "narrower", "narrower than the true label “canine”"),
    "query g": ("tulip", "rose", "missing-positive", "it is judged correct"),
    "a lonely mountain": ("lonely mountain", "peak", "missing-positive", "its text stands in the query"),
    "an old bridge": ("old bridge", "viaduct", "plainly-wrong", ""),
    "query h": (
        "table",
        "chair",
        "rare",
        f"the true labels that stand below have at most {RARE} training queries each",
    ),
    "query i": ("stone", "music", "plainly-wrong", ""),
    "query j": ("steel", "steel wool", "broader", "broader than the true label “steel wool”"),
}
BROADER = {"cat": ["mammal"], "mammal": ["animal", "cat"], "poodle": ["canine"]}
JUDGED = [("query g", "tulip", "correct"), ("an old bridge", "old bridge", "wrong"), ("query j", "steel", "wrong")]
OTHERS = ["mammal"]
LABELS = [*(case[0] for case in CASES.values()), *(case[1] for case in CASES.values()), *OTHERS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    directory = tmp_path_factory.mktemp("sorting") / "data"
    true = [LABELS.index(case[1]) for case in CASES.values()]
    often = [label for label in range(len(LABELS)) if LABELS[label] != "chair"]
    training = [often] * (RARE + 1) + [[LABELS.index("chair")]] * RARE
    Dataset.from_lists(
        "sorting",
        LABELS,
        {
            "train": ([f"training {row}" for row in range(len(training))], training),
            "test": (list(CASES), [[row] for row in true]),
        },
        label_uids=LABELS,
        query_uids={"test": list(CASES), "train": [f"t{row}" for row in range(len(training))]},
        judged={"test": JUDGED},
    ).save(directory)
    table = pq.read_table(directory / "labels.parquet")
    pq.write_table(
        table.append_column("broader", pa.array([BROADER.get(label) for label in LABELS])), directory / "labels.parquet"
    )
    seal(directory)
    return Dataset.load(directory)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ReportedRun:
    """A run whose embeddings put the predicted label of each case first; "ship" and "vessel" have nearly the same."""
    config = tiny_config(label_vectors="none")
    model = build_encoder(config, 0, torch.Generator().manual_seed(0)).eval()
    queries = model.embed_queries(list(CASES))
    embeddings = unit_rows(np.random.default_rng(1).normal(size=(len(LABELS), queries.shape[1])).astype(np.float32))
    embeddings[: len(CASES)] = queries
    sideways = embeddings[LABELS.index("ship")]
    vessel = embeddings[LABELS.index("vessel")]
    sideways = sideways - (sideways @ vessel) * vessel
    embeddings[LABELS.index("ship")] = 0.99 * vessel + np.sqrt(1 - 0.99**2) * sideways / np.linalg.norm(sideways)
    directory = tmp_path_factory.mktemp("sorting") / "run"
    Retriever.from_model(model, LABELS, LABELS, config, "exact", embeddings).save(directory)
    return ReportedRun.measure("run", directory, Task.from_split(data, "test"), 10)


def test_each_wrong_prediction_has_one_kind(data: Dataset, run: ReportedRun) -> None:
    mistakes = Judge(Task.from_split(data, "test"), range(len(CASES))).mistakes(run)
    for query, (text, (predicted, _, kind, clause)) in enumerate(CASES.items()):
        assert LABELS[run.by_index.labels[query, 0]] == predicted
        (wrong,) = mistakes[query].wrong
        assert wrong.causes == {kind: clause}, text
    counts = count_causes(mistakes.values())
    assert sum(counts[kind] for kind in WRONG_CAUSES) == counts["wrong"] == len(CASES)


def test_the_page_counts_kinds_and_major_mistakes_are_saved(data: Dataset, run: ReportedRun, tmp_path: Path) -> None:
    slice_file = tmp_path / "major.parquet"
    page = write_report([run.directory], data, tmp_path / "page.html", k=10, major_mistakes=slice_file).read_text(
        "utf-8"
    )
    for words in (
        "same meaning",
        "broader label",
        "narrower label",
        "missing from the truth",
        "rare label",
        "cosine is at least 0.95",
    ):
        assert words in page
    table = pq.read_table(slice_file)
    assert sorted(table["query"].to_pylist()) == ["an old bridge", "query i"]
    assert set(table["label_text"].to_pylist()) == {"old bridge", "stone"}
    predicted = Predicted(data.labels.uids, run.by_index.labels, run.by_index.labels, run.by_index.scores)
    assert MajorMistakes.load(slice_file).repeated(predicted, data, "test").repeated == 2


def test_hierarchies() -> None:
    def above(column: pa.Array, label: int) -> set[int]:
        data = Dataset.from_lists("h", ["a", "b", "c", "d"], {"test": (["x"], [[0]])})
        table = pa.table({"uid": ["0", "1", "2", "3"], "text": ["a", "b", "c", "d"], "broader": column})
        data._tables["labels"] = table
        data.__dict__.pop("labels", None)
        return set(Hierarchy.from_labels(data.labels).above(label))

    assert above(pa.array(["1", "2", "0", None]), 0) == {1, 2}  # round in a circle
    assert above(pa.array([["1", "3"], ["2"], None, ["elsewhere"]]), 0) == {1, 2, 3}
    assert above(pa.array([["1", "3"], ["2"], None, ["elsewhere"]]), 3) == set()
    assert above(pa.array([1, 2, 3, None]), 0) == {1, 2, 3}
    with pytest.raises(DataError, match="The column 'broader' of the labels is struct"):
        above(pa.array([{"a": 1}] * 4), 0)
