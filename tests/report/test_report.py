"""Reports: the causes of mistakes on constructed queries, the numbers against evaluation, what the page says."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fail, xmc
from plotly.offline import get_plotlyjs
from worlds import tiny_config, wordnet_part

from xmc.data.dataset import Dataset
from xmc.encoders.dual import build_encoder, unit_rows
from xmc.errors import DataError, DependencyError, InputError, StoreError
from xmc.evaluation.evaluate import evaluate
from xmc.indexes.engines.faiss import FaissDesign
from xmc.indexes.label_index import LabelIndex
from xmc.indexes.tuning import Goal, OperatingPoint
from xmc.report import write_report
from xmc.report.curves import MOST_POINTS, calibration, read_training_log
from xmc.report.mistakes import Judge, choose_queries, count_causes, quality
from xmc.report.run import ReportedRun
from xmc.report.storage import bytes_in_memory, describe_index
from xmc.report.task import Task
from xmc.report.texts import canonical, nearly_equal
from xmc.report.write import _names
from xmc.search.retriever import Retriever
from xmc.training.trainer import train

# ------------------------------------------------------------------------------------------ causes, constructed

LABELS = [
    "catamaran",
    "catamarans",
    "yacht",
    "sailing boat",
    "rose",
    "shrub",
    *(f"thing {row}" for row in range(6, 86)),
]
QUERIES = {
    "a boat with two hulls": [0],
    "a red sailing boat": [2],
    "Rose, a flower": [4],
    "a tall mountain": list(range(6, 13)),
    "nothing at all": [],
}
TRAINING = {"a flower: rose": [5], "boats": [0, 1, 3], "flowers": [4], "things": list(range(6, 86))}


@pytest.fixture(scope="module")
def world() -> Dataset:
    splits = {name: (list(part), list(part.values())) for name, part in (("train", TRAINING), ("test", QUERIES))}
    filters = {"test": np.array([[1, 17], [1, 18]])}
    return Dataset.from_lists("constructed", LABELS, splits, filters=filters)


@pytest.fixture(scope="module")
def constructed(world: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReportedRun]:
    """Two runs with label embeddings that put chosen labels first; an exact index, and one that looks into a quarter."""
    config = tiny_config(label_vectors="none")
    model = build_encoder(config, 0, torch.Generator().manual_seed(0)).eval()
    queries = model.embed_queries(list(QUERIES))
    noise = unit_rows(np.random.default_rng(1).normal(size=(len(LABELS), queries.shape[1])).astype(np.float32))
    embeddings = noise.copy()
    embeddings[[1, 3, 5]] = queries[:3]
    embeddings[[0, 4]] = unit_rows(queries[[0, 2]] + 0.5 * noise[[0, 4]])
    embeddings[6:10] = unit_rows(queries[3] + 1.5 * noise[6:10])
    embeddings[2] = -queries[1]
    retriever = Retriever.from_model(model, world.labels.uids.to_pylist(), LABELS, config, "exact", embeddings)
    folder = tmp_path_factory.mktemp("constructed")
    retriever.save(folder / "exact")
    index = LabelIndex(FaissDesign(retriever.model.dimension, "IVF4,Flat", {"nprobe": 1}))
    index.build(embeddings, np.arange(len(LABELS)))
    retriever.use_index(index)
    retriever.save(folder / "quarter")
    task = Task.from_split(world, "test")
    return {name: ReportedRun.measure(name, folder / name, task, 10) for name in ("exact", "quarter")}


def test_a_wrong_label_with_almost_the_text_of_a_true_one(world: Dataset, constructed: dict[str, ReportedRun]) -> None:
    found = Judge(Task.from_split(world, "test"), [0]).mistakes(constructed["exact"])[0]
    (wrong,) = found.wrong
    assert wrong.place == 1
    assert wrong.causes == {"near-duplicate": "almost the text of the true label “catamaran”"}
    (missed,) = found.missed
    assert (missed.label, missed.place, missed.exact_place, missed.causes) == (0, 2, 2, ("encoder-miss",))


def test_a_true_label_unseen_in_training_and_a_wrong_one_that_stands_in_the_query(
    world: Dataset, constructed: dict[str, ReportedRun]
) -> None:
    found = Judge(Task.from_split(world, "test"), [1]).mistakes(constructed["exact"], [1])[1]
    (missed,) = found.missed
    # Its embedding is the opposite of the query's, so that it comes last: of all labels less two filtered ones.
    assert (missed.label, missed.place, missed.exact_place) == (2, None, 84)
    assert missed.causes == ("unseen", "encoder-miss")
    (wrong,) = found.wrong
    assert wrong.causes == {"missing-positive": "its text stands in the query"}
    assert found.causes == {"unseen", "encoder-miss", "missing-positive"}
    assert not {17, 18} & set(constructed["exact"].by_index.labels[1].tolist())


def test_a_wrong_label_that_a_training_query_with_the_same_words_has(
    world: Dataset, constructed: dict[str, ReportedRun]
) -> None:
    (wrong,) = Judge(Task.from_split(world, "test"), [2]).mistakes(constructed["exact"])[2].wrong
    assert wrong.causes == {"missing-positive": "the training query 0 has the same words, and this label"}


def test_what_the_index_misses_and_what_the_encoder_misses(world: Dataset, constructed: dict[str, ReportedRun]) -> None:
    run = constructed["quarter"]
    found = Judge(Task.from_split(world, "test"), [3]).mistakes(run, [3])[3]
    by_index, by_exact = (
        one.search(["a tall mountain"], 10)[0][0].tolist() for one in (run.retriever, run.retriever.exact())
    )
    causes = {one.label: one.causes for one in found.missed}
    missed_by_index = {label for label in range(6, 13) if label in by_exact and label not in by_index}
    assert missed_by_index == {label for label, cause in causes.items() if cause == ("index-miss",)} != set()
    assert (
        {label for label, cause in causes.items() if cause == ("encoder-miss",)}
        == set(causes) - missed_by_index
        != set()
    )
    for one in found.missed:
        assert one.exact_place == by_exact.index(one.label) + 1 if one.label in by_exact else one.exact_place > 10
    exact = Judge(Task.from_split(world, "test"), [3]).mistakes(constructed["exact"])[3]
    assert "index-miss" not in exact.causes
    assert constructed["exact"].is_exact
    assert not run.is_exact
    assert run.agreement(10) < 1 == constructed["exact"].agreement(10)


def test_a_true_label_that_the_run_does_not_have(
    world: Dataset, constructed: dict[str, ReportedRun], tmp_path: Path
) -> None:
    retriever = Retriever.load(constructed["exact"].directory)
    retriever.remove_labels(["0"])
    retriever.add_labels(["dinghy"])
    retriever.save(tmp_path / "changed")
    task = Task.from_split(world, "test")
    run = ReportedRun.measure("changed", tmp_path / "changed", task, 20)
    mistakes = Judge(task, range(4)).mistakes(run, range(4))
    assert [(one.label, one.place, one.causes) for one in mistakes[0].missed] == [(0, None, ("absent",))]
    page = write_report([tmp_path / "changed"], world, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "changed lacks 1 of the data set&#39;s 86 labels" in page
    assert "changed has 1 labels that the data set does not" in page
    assert "1 queries have no true label" in page
    counts = count_causes(mistakes.values())
    assert counts["missed"] == sum(len(one.missed) for one in mistakes.values())
    assert counts["absent"] == 1


def test_queries_are_chosen_worst_first() -> None:
    qualities = np.array([0.5, np.nan, 0.0, 1.0, 0.0, 0.9, 0.7, 0.8])
    confidence = np.array([0.1, 0.9, 0.2, 0.1, 0.6, 0.1, 0.1, 0.1])
    assert list(choose_queries(qualities, confidence, 100)) == [4, 2, 0, 6, 7, 5, 3]
    chosen = choose_queries(qualities, confidence, 5)
    assert [query for query, worst in chosen.items() if worst] == [4, 2, 0]
    assert len(chosen) == 5
    assert 1 not in chosen


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("Sail-boat", "sail  boat", True),
        ("ﬁsh", "fish", True),
        ("colour television", "color television", True),
        ("C++", "C#", False),
        ("", "", False),
        ("red", "bed", False),
    ],
)
def test_nearly_equal_texts(first: str, second: str, equal: bool) -> None:
    assert nearly_equal(canonical(first), canonical(second)) == equal


# ------------------------------------------------------------------------------------------ numbers, on trained runs


@pytest.fixture(scope="module")
def data() -> Dataset:
    return wordnet_part(300)


@pytest.fixture(scope="module")
def runs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A trained run, and the same with an approximate index that says it was tuned."""
    folder = tmp_path_factory.mktemp("report")
    train(data, tiny_config(epochs=2, validation=0.1), folder / "exact")
    retriever = Retriever.load(folder / "exact")
    retriever.reindex("IVF16,PQ8x4fs")
    point = OperatingPoint("IVF16,PQ8x4fs", {"nprobe": 8.0}, 0, 0.9, 0.01, 5000.0, 0.1, 0.2, 12.0, 1.0)
    retriever.index.measured.update(asdict(point), goal=asdict(Goal(recall=0.9)), pareto=[asdict(point)])
    retriever.save(folder / "approximate")
    return [folder / "exact", folder / "approximate"]


def test_metrics_are_those_of_evaluation(data: Dataset, runs: list[Path]) -> None:
    task = Task.from_split(data, "test")
    for directory in runs:
        run = ReportedRun.measure("run", directory, task, 100)
        expected = evaluate(run.retriever, data).values
        assert {name: run.metrics.values[name] for name in expected} == pytest.approx(expected)
        assert len([name for name in run.metrics.values if name.startswith("R@")]) == 100
        mean = np.nanmean(quality(run, task))
        assert 0 < mean < 1
        bins = calibration(run, task, 1)
        assert sum(one.predictions for one in bins) == len(task.queries)
        hits = sum(one.hits * one.predictions for one in bins)
        assert 100 * hits / len(task.queries) == pytest.approx(run.metrics.values["P@1"])
        assert [one.score for one in bins] == sorted(one.score for one in bins)


def test_exact_places_are_those_of_all_scores(data: Dataset, runs: list[Path]) -> None:
    task = Task.from_split(data, "test")
    run = ReportedRun.measure("run", runs[1], task, 10)
    pairs = [(query, label) for query in range(0, 200, 9) for label in task.true_labels(query).tolist()]
    queries, labels = np.array(pairs, np.int64).T
    scores = (run.embeddings @ run.retriever.embeddings.T)[queries]
    own = scores[np.arange(len(pairs)), labels]
    for row, query in enumerate(queries):
        scores[row, task.targets.excluded[query].indices] = -np.inf
    scores[np.arange(len(pairs)), labels] = -np.inf
    np.testing.assert_array_equal(run.exact_places(queries, labels, task), 1 + (scores > own[:, None]).sum(axis=1))


def test_sizes_and_measurements(data: Dataset, runs: list[Path]) -> None:
    task = Task.from_split(data, "test")
    exact, approximate = (ReportedRun.measure("run", directory, task, 10) for directory in runs)
    files = [
        file for file in runs[1].rglob("*") if file.is_file() and file.name not in ("manifest.json", "metrics.jsonl")
    ]
    manifest = (runs[1] / "index" / "manifest.json").stat().st_size
    disk = approximate.disk
    assert sum(disk.values()) == sum(file.stat().st_size for file in files) + manifest
    assert disk["index"] == (runs[1] / "index" / "index.faiss").stat().st_size
    memory = bytes_in_memory(exact)
    assert memory["label embeddings"] == 4 * 32 * 7488
    assert memory["index"] == 0 < bytes_in_memory(approximate)["index"]
    assert describe_index(exact).points == ()
    facts = describe_index(approximate)
    assert facts.chosen is not None
    assert facts.points == (facts.chosen,)
    del approximate.retriever.index.measured["pareto"]  # as older indexes have it
    assert describe_index(approximate) == facts
    approximate.retriever.index.measured["colour"] = "red"
    with pytest.raises(StoreError, match="does not say what tuning measured"):
        describe_index(approximate)


def test_training_curves(runs: list[Path], tmp_path: Path) -> None:
    curves = read_training_log(runs[0])
    assert len(curves.loss) == len(curves.learning_rate) == curves.loss[-1][0]
    assert len(curves.validation["P@1"]) == 2
    assert max(rate for _, rate in curves.learning_rate) <= 0.02
    lines = [json.dumps({"step": step, "loss": float(step)}) for step in range(1, 901)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 901, "lo', "[]"]))
    long = read_training_log(tmp_path)
    assert len(long.loss) == MOST_POINTS
    assert long.loss[-1][0] == 900
    assert np.mean([value for _, value in long.loss]) == pytest.approx(450.5)
    assert read_training_log(tmp_path / "nowhere").loss == []


# ------------------------------------------------------------------------------------------ the page


def test_the_page_says_all_and_is_the_same_again(data: Dataset, runs: list[Path], tmp_path: Path) -> None:
    pages = [write_report(runs, data, tmp_path / name, queries=40).read_text("utf-8") for name in ("one", "two")]
    assert pages[0] == pages[1]
    page = pages[0].replace(get_plotlyjs(), "")
    for words in (
        "P@5 contributed",
        "PSP@5 contributed",
        "R@k, k = 1 to 100",
        "Loss",
        "P@1 of held-out",
        "Learning rate",
    ):
        assert words in page
    for words in (
        "IVF16,PQ8x4fs",
        "tuned for recall@10 0.9",
        "exact has no measurements of designs",
        "40 of the 200 queries",
    ):
        assert words in re.sub("</?bdi>", "", page)
    value = evaluate(Retriever.load(runs[0]), data).values["nDCG@3"]
    assert f"{value:.2f}" in page
    assert page.count("<tr data-causes") == 40
    assert re.search(r'class="reasons" dir="auto">[^<]* \+0\.\d\d', page)
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert len(figures["recall"]["data"]) == 3  # and exact search, of the run that is not exact
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert "://" not in page


# ------------------------------------------------------------------------------------------ mistakes of the user's


def test_mistakes_are_sentences(
    data: Dataset, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "page.html"
    other = Dataset.from_lists("other", ["a"], {"test": (["b"], [[0]])}, label_uids=["elsewhere"])
    mistakes: list[tuple[Any, type[Exception], str]] = [
        (lambda: write_report([tmp_path / "nowhere"], data, out), StoreError, "nowhere does not exist"),
        (lambda: write_report([tmp_path], data, out), StoreError, "holds no manifest.json"),
        (lambda: write_report([], data, out), InputError, "at least one run"),
        (lambda: write_report([*runs, runs[0]], data, out), InputError, "given more than once"),
        (lambda: write_report(runs, data, out, "dev"), DataError, "has no split 'dev', only train, test"),
        (lambda: write_report(runs, other, out), DataError, "share no label uid"),
        (lambda: write_report(runs, data, out, k=9), InputError, "k must be at least 10"),
        (lambda: write_report(runs, data, out, queries=0), InputError, "queries must be at least 1"),
        (lambda: write_report(runs, data, tmp_path), StoreError, "is a directory; name a file"),
    ]
    for call, kind, message in mistakes:
        with pytest.raises(kind, match=message):
            call()
    monkeypatch.setitem(sys.modules, "plotly", None)  # as where it is not installed
    with pytest.raises(DependencyError, match=r"needs the package plotly: pip install plotly jinja2$"):
        write_report(runs, data, out)
    assert not out.exists()


def test_the_command(runs: list[Path], tmp_path: Path) -> None:
    fail(
        xmc("report", tmp_path / "none", "--dataset", "wordnet-8k", "-o", tmp_path / "page.html"), "none does not exist"
    )
    assert "--dataset" in xmc("report", runs[0]).stderr
    assert list(tmp_path.iterdir()) == []


def test_names_tell_runs_apart() -> None:
    assert _names([Path("/a/one"), Path("/a/two")]) == ["one", "two"]
    assert _names([Path("/a/run"), Path("/b/run"), Path("/b/x")]) == ["a/run", "b/run", "b/x"]


def test_without_a_training_split(runs: list[Path], tmp_path: Path) -> None:
    part = wordnet_part(1)
    test = part.split("test")
    lists = [row.tolist() for row in np.split(test.positives.indices, test.positives.indptr[1:-1])]
    only = Dataset.from_lists(
        "only", part.labels.texts.to_pylist(), {"test": (test.texts.to_pylist(), lists)},
        label_uids=part.labels.uids.to_pylist(),
    )  # fmt: skip
    page = write_report(runs[:1], only, tmp_path / "page.html", k=10, queries=5).read_text("utf-8")
    assert "The data set has no training split" in page
    assert "was trained on wordnet-part, whose content is not that of this data set (only)" in page
    assert "PSP@1" not in page.replace(get_plotlyjs(), "")


# ------------------------------------------------------------------------------------------ pairs judged not relevant


def test_rejected_pairs_are_neither_true_nor_missing_positives(
    world: Dataset, constructed: dict[str, ReportedRun]
) -> None:
    """Label 3, "sailing boat", stands in the query 1 and is predicted for it: a missing positive, unless it was rejected."""
    plain = Task.from_split(world, "test")
    rejected = {"train": [[0, 4], [], [5], []], "test": [[1], [3], [], [], []]}
    splits = {name: (list(part), list(part.values())) for name, part in (("train", TRAINING), ("test", QUERIES))}
    judged = Task.from_split(Dataset.from_lists("judged", LABELS, splits, rejected=rejected), "test")
    assert judged.positives.tolist() == [len(labels) for labels in QUERIES.values()]
    assert judged.training_counts is not None
    assert plain.training_counts is not None
    assert judged.training_counts.tolist() == plain.training_counts.tolist()
    run = constructed["exact"]
    causes = []
    for task in (plain, judged):
        wrong = Judge(task, [1]).mistakes(run)[1].wrong
        causes.append([sorted(mistake.causes) for mistake in wrong])
    assert causes == [[["missing-positive"]], [["rare"]]]
    first, *others = TRAINING.items()
    training = {first[0]: [], **dict(others)}
    data = Dataset.from_lists(
        "twin", LABELS, {"train": (list(training), list(training.values())), "test": splits["test"]},
        rejected={"train": [[5], [], [], []]},
    )  # fmt: skip
    (wrong,) = Judge(Task.from_split(data, "test"), [2]).mistakes(run)[2].wrong
    assert "missing-positive" not in wrong.causes  # the training query with the same words rejects the label
