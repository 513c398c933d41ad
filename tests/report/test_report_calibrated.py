"""The report's section on calibration: its numbers against the retriever's own answers, and what the page says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from worlds import calibrated_run, wordnet_part

import xmc
from xmc.data.dataset import Dataset
from xmc.evaluation.check import check
from xmc.report import write_report
from xmc.report.calibrated import POLICY, Measured, count_of_sets, measure, notices
from xmc.report.run import ReportedRun
from xmc.report.task import Task

CANDIDATES = 60


@pytest.fixture(scope="module")
def data() -> Dataset:
    return wordnet_part(1200)


@pytest.fixture(scope="module")
def directory(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is calibrated on training queries that it kept aside."""
    return calibrated_run(data, tmp_path_factory.mktemp("calibrated") / "aside", CANDIDATES)


def measured(run: ReportedRun, task: Task) -> Measured:
    found = measure(run, task)
    assert found is not None
    return found


def test_numbers_are_what_the_retriever_does(data: Dataset, directory: Path) -> None:
    task = Task.from_split(data, "test")
    task = replace(task, targets=task.queries.targets())  # without the filter, which the retriever knows nothing of
    run = ReportedRun.measure("aside", directory, task, 10)
    retriever, found = run.retriever, measured(run, task)
    true = [set(data.labels.uids.take(task.true_labels(row)).to_pylist()) for row in range(len(task.queries))]

    level = found.recalls[0]
    assert (level.recall, level.why) == (0.5, "")
    assert level.sizes is not None
    sets = [set(one.labels) for one in retriever.predict_sets(task.texts, recall=0.5)]
    assert level.sizes.mean == pytest.approx(np.mean([len(one) for one in sets]))
    assert level.sizes.empty == np.mean([not one for one in sets])
    recalls = [len(one & own) / len(own) for one, own in zip(sets, true, strict=True) if own]
    assert level.sizes.recall == pytest.approx(np.mean(recalls))

    labels, probabilities = retriever.predict_proba(task.texts, k=CANDIDATES)
    hits = np.array([[label in own for label in row] for row, own in zip(labels, true, strict=True)])
    share = hits.cumsum(axis=1) / [[len(own)] for own in true]
    assert level.fixed > 1
    assert share[:, level.fixed - 1].mean() >= level.sizes.recall > share[:, level.fixed - 2].mean()
    assert found.recall == pytest.approx(hits.sum() / sum(map(len, true)))
    one, predictions, probability, right = found.reliabilities[0]
    assert (one.name, predictions) == ("rank 1", len(true))
    assert probability == pytest.approx(probabilities[:, 0].mean())
    assert right == pytest.approx(hits[:, 0].mean())
    assert found.first.error >= abs(probability - right)

    decided = retriever.decide(task.texts, POLICY.automatic, POLICY.person)
    assert found.observed.automatic == pytest.approx(np.mean([len(one.automatic) for one in decided]))
    assert found.observed.person == pytest.approx(np.mean([len(one.person) for one in decided]))
    assert found.expected == found.calibration.histogram.expect(POLICY)


def test_guarantees_are_checked_as_by_calibrate_check(
    data: Dataset, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xmc.report.calibrated.COUNTED", 200)  # which is all of them
    task = Task.from_split(data, "test")
    run = ReportedRun.measure("aside", directory, task, 10)
    found = measured(run, task)
    expected = {one.name: one for one in check(run.retriever, data).checks}
    shown = [*found.recall_checks(), *found.region_checks()]
    assert [one.name for one in shown] == list(expected)
    for one in shown:
        assert one.found == pytest.approx(expected[one.name].found)
        assert one.p_value == pytest.approx(expected[one.name].p_value)
    regions = run.retriever.predict_sets(task.texts, significance=0.1)
    level = found.regions[1]
    assert level.region is not None
    assert level.region.median == sorted(one.count for one in regions)[99]


def test_what_cannot_be_guaranteed_says_why(data: Dataset, directory: Path) -> None:
    task = Task.from_split(data, "test")
    run = ReportedRun.measure("aside", directory, task, 10)
    calibration = run.retriever.calibration
    assert calibration is not None
    *_, last = measured(run, task).recalls
    assert (last.recall, last.check, last.sizes) == (0.95, None, None)
    assert "A recall of 0.95 cannot be guaranteed by 60 candidates" in last.why
    few = replace(calibration.powerset, scores=calibration.powerset.scores[:10])
    run.retriever.calibration = replace(calibration, powerset=few)
    levels = measured(run, task).regions
    assert [level.check is None for level in levels] == [False, False, True]
    assert "A significance of 0.05 needs 19 calibration queries" in levels[-1].why
    run.retriever.calibration = None
    assert measure(run, task) is None


def test_a_sample_of_many_queries(data: Dataset, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmc.report.calibrated.MOST_QUERIES", 70)
    task = Task.from_split(data, "test")
    run = ReportedRun.measure("aside", directory, task, 10)
    found = measured(run, task)
    assert sum(part.predictions for part in found.first.bins) == 70
    rows = np.sort(np.random.default_rng(0).permutation(200)[:70])
    part = task.take(rows)
    assert [part.true_labels(row).tolist() for row in range(70)] == [task.true_labels(row).tolist() for row in rows]
    first = run.by_index.labels[rows, 0]
    assert run.first_labels(part, rows, CANDIDATES).labels[:, 0].tolist() == first.tolist()
    hits = part.contains(first[:, None]).mean()
    assert sum(one.true * one.predictions for one in found.first.bins) / 70 == pytest.approx(hits)


def test_the_page_says_what_its_figures_are_worth(data: Dataset, directory: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(directory)
    retriever.add_labels(["a label of later"])
    retriever.save(tmp_path / "changed")
    xmc.calibrate(retriever, data, "test", candidates=CANDIDATES)
    retriever.save(tmp_path / "itself")
    retriever.calibration = None
    retriever.save(tmp_path / "plain")
    runs = [directory, *(tmp_path / name for name in ("changed", "itself", "plain"))]
    page = write_report(runs, data, tmp_path / "page.html", queries=5).read_text("utf-8").replace(get_plotlyjs(), "")
    section = re.search(r'<section id="probabilities">(.*?)</section>', page, re.DOTALL)[1]  # type: ignore[index]
    notices = re.findall(r'class="notice"[^>]*>([^<]*)<', re.sub("</?bdi>", "", section))
    assert notices == [
        "Labels or index of changed were changed after calibration; what it guarantees is for those before. "
        "Calibrate it again.",
        "itself was calibrated on these very queries: what stands here is not measured on others, and looks better "
        "than it is. Report on another split.",
        "plain is not calibrated, and has no part in this section.",
    ]
    assert "calibration of wordnet-part, 360 queries" in section
    assert "A recall of 0.95 cannot be guaranteed" in section
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    for place in ("reliability 1", "reliability 5", "guarantee recall", "guarantee region"):
        assert [trace["meta"] for trace in figures[place]["data"]] == [0, 1, 2]  # each in the colour of its run
        assert f'data-figure="{place}"' in section
    for place in ("error by rank", "error by frequency", "set sizes"):
        assert [trace["meta"] for trace in figures[place]["data"]] == [0, -1, 1, -1, 2, -1]
        assert f'data-figure="{place}"' in section


def test_without_calibration_the_page_says_how(data: Dataset, directory: Path, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(directory)
    retriever.calibration = None
    retriever.save(tmp_path / "plain")
    page = write_report([tmp_path / "plain"], data, tmp_path / "page.html", queries=5).read_text("utf-8")
    assert "No run is calibrated" in page
    assert "xmc calibrate RUN DATA" in page
    assert "reliability 1" not in page


def test_other_data_and_queries_without_true_labels(data: Dataset, directory: Path, tmp_path: Path) -> None:
    splits = {"test": (["a boat with two hulls", "nothing"], [[0], []])}
    labels = (data.labels.texts.to_pylist(), data.labels.uids.to_pylist())
    other = Dataset.from_lists("other", labels[0], splits, label_uids=labels[1])
    task = Task.from_split(other, "test")
    run = ReportedRun.measure("aside", directory, task, 10)
    found = measure(run, task)
    assert found is None
    assert notices([run], [found], task) == [
        "aside is calibrated, but fewer than two queries have a true label to measure it by.",
        "aside was calibrated on wordnet-part, whose content is not that of this data set (other); what it guarantees is "
        "for queries like those.",
    ]
    page = write_report([directory], other, tmp_path / "page.html", queries=5).read_text("utf-8")
    assert "fewer than two queries have a true label" in page


def test_counts_of_sets() -> None:
    assert [count_of_sets(count) for count in (0, 9_999_999, 10**7, 10**400)] == [
        "0",
        "9,999,999",
        "about 10^7",
        "about 10^400",
    ]
