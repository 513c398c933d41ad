"""Batch jobs of a calibrated run: probabilities, label sets and decisions are the retriever's, or refused before any work."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import tiny_config, wordnet_part

import xmc
from xmc.batch import JobOptions, Policy, predict_files
from xmc.batch.evaluation import evaluate_files
from xmc.calibration.sets import Wanted
from xmc.cli import main
from xmc.errors import InputError, StoreError
from xmc.search.answers import LISTED_SETS

DATA = wordnet_part(500)
CANDIDATES = 20
TEXTS = DATA.split("train").texts.to_pylist()[:48]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is not calibrated."""
    directory = tmp_path_factory.mktemp("calibrated") / "plain"
    xmc.train(DATA, tiny_config(epochs=1), out=directory)
    return directory


@pytest.fixture(scope="module")
def run(plain: Path) -> Path:
    retriever = xmc.Retriever.load(plain)
    xmc.calibrate(retriever, DATA, "test", candidates=CANDIDATES)
    retriever.save(plain.with_name("run"))
    return plain.with_name("run")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("calibrated") / "in.parquet"
    texts: list[str | None] = [*TEXTS]
    texts[5], texts[40] = None, ""
    pq.write_table(pa.table({"uid": list(map(str, range(len(texts)))), "text": texts}), file)
    return file


BAD = (5, 40)
GOOD = [row for row in range(len(TEXTS)) if row not in BAD]


def predicted(run: Path, source: Path, out: Path, rows_per_part: int = 100_000, **asked: Any) -> list[dict[str, Any]]:
    """The rows that a job writes."""
    options = JobOptions(on_bad_row="null", rows_per_part=rows_per_part)
    predict_files(run, source, out, options=options, **asked)
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    for row in BAD:
        assert {name for name, value in rows[row].items() if value is not None} == {"uid"}
    assert [row["uid"] for row in rows] == list(map(str, range(len(TEXTS))))
    return [rows[row] for row in GOOD]


def test_probabilities_and_decisions_are_those_of_the_retriever(
    run: Path, retriever: xmc.Retriever, source: Path, tmp_path: Path
) -> None:
    found = predicted(run, source, tmp_path / "out", k=5, probabilities=True, decide="automatic=0.4,person=0.2")
    texts = [TEXTS[row] for row in GOOD]
    labels, probabilities = retriever.predict_proba(texts, k=5)
    assert [row["labels"] for row in found] == labels.tolist()
    np.testing.assert_allclose([row["probabilities"] for row in found], probabilities, atol=1e-6)
    np.testing.assert_allclose([row["scores"] for row in found], retriever.predict(texts, k=5)[1], atol=1e-6)
    seen = set()
    for row, decision in zip(found, retriever.decide(texts, automatic=0.4, person=0.2), strict=True):
        for label, decided in zip(row["labels"], row["decisions"], strict=True):
            expected = "automatic" if label in decision.automatic else "person" if label in decision.person else "none"
            assert decided == expected
            seen.add(decided)
    assert seen == {"automatic", "person", "none"}
    schema = pq.read_schema(tmp_path / "out" / "part-00000.parquet")
    assert schema.names == ["uid", "labels", "scores", "probabilities", "decisions"]
    assert schema.field("probabilities").type == pa.list_(pa.float32())


@pytest.mark.parametrize("asked", ["recall=0.2", "recall=0.1", "false-positive-share=0.5"])
def test_sets_are_those_of_the_retriever(
    run: Path, retriever: xmc.Retriever, source: Path, tmp_path: Path, asked: str
) -> None:
    found = predicted(run, source, tmp_path / "out", k=2, sets=asked, label_texts=True)
    name, _, value = asked.replace("-", "_").partition("=")
    sets = retriever.predict_sets([TEXTS[row] for row in GOOD], **{name: float(value)})
    assert len({len(one.labels) for one in sets}) > 1
    for row, one in zip(found, sets, strict=True):
        assert list(row) == ["uid", "labels", "scores", "texts", "set", "set_probabilities"]
        assert len(row["labels"]) == 2
        assert row["set"] == one.labels
        np.testing.assert_allclose(row["set_probabilities"], one.probabilities, atol=1e-6)
    given = Wanted(**{name: float(value)})
    assert predicted(run, source, tmp_path / "again", k=2, sets=given, label_texts=True) == found


def test_regions_are_those_of_the_retriever(run: Path, retriever: xmc.Retriever, source: Path, tmp_path: Path) -> None:
    found = predicted(run, source, tmp_path / "out", sets="significance=0.1", k=CANDIDATES)
    regions = retriever.predict_sets([TEXTS[row] for row in GOOD], significance=0.1, limit=LISTED_SETS)
    assert min(one.count for one in regions) > LISTED_SETS
    for row, one in zip(found, regions, strict=True):
        assert row["sets"] == one.sets
        assert row["set_count"] == one.count
        np.testing.assert_allclose(row["set_p_values"], one.p_values, rtol=1e-6)
        np.testing.assert_allclose(
            [row["confidence"], row["credibility"]], [one.confidence, one.credibility], rtol=1e-6
        )
    types = {field.name: field.type for field in pq.read_schema(tmp_path / "out" / "part-00000.parquet")}
    numbers = pa.list_(pa.float32())
    assert types["sets"] == pa.list_(pa.list_(pa.string()))
    assert (types["set_p_values"], types["set_count"]) == (numbers, pa.float64())
    assert (types["confidence"], types["credibility"]) == (pa.float32(), pa.float32())


@pytest.mark.parametrize("sets", ["recall=0.2", "significance=0.1"])
def test_what_is_said_of_a_row_does_not_depend_on_its_part(run: Path, source: Path, tmp_path: Path, sets: str) -> None:
    asked = {"k": 4, "probabilities": True, "sets": sets, "decide": Policy(0.4, 0.2)}
    whole = predicted(run, source, tmp_path / "whole", **asked)
    assert predicted(run, source, tmp_path / "parts", rows_per_part=7, **asked) == whole
    assert len(list((tmp_path / "parts").glob("part-*"))) == 7


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_ray_writes_the_same(run: Path, source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'ray[data]'")
    asked: dict[str, Any] = {"k": 4, "probabilities": True, "sets": "significance=0.1", "decide": "automatic=0.4"}
    for engine in ("local", "ray"):
        options = JobOptions(on_bad_row="null", rows_per_part=7, engine=engine)
        predict_files(run, source, tmp_path / engine, options=options, **asked)
    files = {file.name: file.read_bytes() for file in (tmp_path / "local").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "ray").iterdir()} == files


def test_no_rows_and_only_bad_rows(run: Path, tmp_path: Path) -> None:
    for number, texts in enumerate(([], [None, ""])):
        file, out = tmp_path / f"{number}.parquet", tmp_path / str(number)
        pq.write_table(pa.table({"uid": ["a", "b"][: len(texts)], "text": pa.array(texts, pa.string())}), file)
        for sets in ("recall=0.2", "significance=0.1"):
            options = JobOptions(on_bad_row="null")
            predict_files(
                run, file, out / sets, probabilities=True, sets=sets, decide="person=0.2", options=options, k=3
            )
            assert pq.read_table(out / sets).num_rows == len(texts)


def test_a_job_is_not_resumed_with_other_sets(run: Path, source: Path, tmp_path: Path) -> None:
    asked = {"k": 3, "sets": "recall=0.2", "decide": "automatic=0.4,person=0.2"}
    predicted(run, source, tmp_path / "out", **asked)
    (tmp_path / "out" / "_SUCCESS").unlink()
    resumed = {**asked, "options": JobOptions(on_bad_row="null", resume=True)}
    for message, other in {
        r'another guarantee of sets: {"recall": 0.2} there, {"recall": 0.1} here': {"sets": "recall=0.1"},
        r'another guarantee of sets: {"recall": 0.2} there, null here': {"sets": None},
        r'another policy of decisions: {"automatic": 0.4, "person": 0.2} there': {"decide": Policy(0.7, 0.2)},
        r"another choice of probabilities: null there, true here": {"probabilities": True},
    }.items():
        with pytest.raises(StoreError, match=message):
            predict_files(run, source, tmp_path / "out", **(resumed | other))
    again = xmc.Retriever.load(run)
    xmc.calibrate(again, DATA, "test", candidates=CANDIDATES, seed=1)
    again.save(tmp_path / "again")
    with pytest.raises(
        StoreError, match="another model"
    ):  # calibrated otherwise: the fingerprint of a run is of all its files
        predict_files(tmp_path / "again", source, tmp_path / "out", **resumed)
    assert predict_files(run, source, tmp_path / "out", **resumed).resumed == 1


def test_jobs_that_ask_for_nothing_of_this_are_described_as_ever(run: Path, source: Path, tmp_path: Path) -> None:
    predicted(run, source, tmp_path / "out")
    described = json.loads((tmp_path / "out" / "_job.json").read_text())
    assert not {"probabilities", "sets", "decide"} & described.keys()


REFUSED: dict[str, dict[str, Any]] = {
    r"k must be at most the 20 candidates that calibration looked at, but is 21": {"k": 21, "probabilities": True},
    r"leave out the condition where, or sets, decide": {
        "where": 'uid == "boat"',
        "sets": "recall=0.2",
        "decide": "person=0",
    },
    r"sets must be one of .* such as recall=0.9, but is 'precision=0.9'": {"sets": "precision=0.9"},
    r"sets must be one of .*, but is 'recall'": {"sets": "recall"},
    r"sets must be one of .*, but is 'recall=high'": {"sets": "recall=high"},
    r"sets must be one of .*, but is 'recall=0.2,recall=0.9'": {"sets": "recall=0.2,recall=0.9"},
    r"Name one of recall, false_positive_share and significance": {"sets": "recall=0.2,significance=0.1"},
    r"recall must be a share between 0 and 1, without them, but is 1.0": {"sets": "recall=1"},
    r"significance must be a share between 0 and 1, without them, but is nan": {"sets": "significance=nan"},
    r"A recall of 0.999 cannot be guaranteed by 20 candidates": {"sets": "recall=0.999"},
    r"A false positive share of 0.001 cannot be guaranteed": {"sets": "false-positive-share=0.001"},
    r"A significance of 0.001 needs 999 calibration queries": {"sets": "significance=0.001"},
    r"decide must be automatic=SHARE,person=SHARE.*, but is '0.9'": {"decide": "0.9"},
    r"The threshold automatic must be a whole thousandth between 0 and 1, but is 1.5": {"decide": "automatic=1.5"},
    r"The threshold person, 0.5, must not be above automatic, 0.4": {"decide": "automatic=0.4,person=0.5"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_given_is_refused_before_the_input_is_read(run: Path, tmp_path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict_files(run, tmp_path / "no-such-input.parquet", tmp_path / "out", **({"k": 3} | REFUSED[message]))
    assert not (tmp_path / "out").exists()


def test_runs_without_calibration_and_labels_elsewhere_are_refused(run: Path, plain: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "no-such-input.parquet"
    for asked in ({"probabilities": True}, {"sets": "recall=0.2"}, {"decide": Policy()}):
        with pytest.raises(InputError, match=r"plain is not calibrated; `xmc calibrate`"):
            predict_files(plain, nothing, tmp_path / "out", **asked)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="nowhere"):
        predict_files(tmp_path / "nowhere", nothing, tmp_path / "out", probabilities=True)
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'ray[data]'")
    options = JobOptions(engine="ray", index_shards=2)
    with pytest.raises(InputError, match=r"calibrated with its own index; leave out index_shards, or probabilities"):
        predict_files(run, nothing, tmp_path / "out", k=3, probabilities=True, options=options)


def test_labels_changed_after_calibration_are_warned_of(
    run: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warning = "labels or index were changed after calibration; what it guarantees is for those before"
    changed = xmc.Retriever.load(run)
    changed.add_labels(["turquoise"])
    changed.save(tmp_path / "changed")
    with caplog.at_level(logging.WARNING, "xmc.batch"):
        predicted(run, source, tmp_path / "same", k=3, probabilities=True)
        predicted(tmp_path / "changed", source, tmp_path / "scores", k=3)
        assert warning not in caplog.messages
        found = predicted(tmp_path / "changed", source, tmp_path / "out", k=3, probabilities=True)
    assert caplog.messages == [warning]
    labels, probabilities = changed.predict_proba([TEXTS[row] for row in GOOD], k=3)
    assert [row["labels"] for row in found] == labels.tolist()
    np.testing.assert_allclose([row["probabilities"] for row in found], probabilities, atol=1e-6)


def test_what_a_policy_is_to_expect_is_said(
    run: Path, retriever: xmc.Retriever, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "xmc.batch"):
        predicted(run, source, tmp_path / "out", k=3, decide="automatic=0.4,person=0.2")
    assert retriever.calibration is not None
    sentence = retriever.calibration.histogram.expect(Policy(0.4, 0.2)).sentence()
    assert f"expected, of all 20 candidates of a row: {sentence}" in caplog.messages


def test_written_predictions_are_evaluated_all_the_same(run: Path, tmp_path: Path) -> None:
    split = DATA.split("test")
    pq.write_table(pa.table({"uid": split.uids, "text": split.texts}), tmp_path / "in.parquet")
    predict_files(run, tmp_path / "in.parquet", tmp_path / "plain", k=5)
    predict_files(run, tmp_path / "in.parquet", tmp_path / "all", k=5, probabilities=True, sets="significance=0.1")
    assert evaluate_files(tmp_path / "all", DATA) == evaluate_files(tmp_path / "plain", DATA)


def test_command(
    run: Path,
    plain: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--input", source, "--output", tmp_path / "out", "--on-bad-row", "drop", "-k", 3, "--sets", "recall=0.2"]
    monkeypatch.setattr("sys.argv", ["xmc", "predict", str(plain), *map(str, given)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "plain is not calibrated" in capsys.readouterr().err.replace("\n", " ")
    given += ["--probabilities", "--decide", "automatic=0.4,person=0.2"]
    monkeypatch.setattr("sys.argv", ["xmc", "predict", str(run), *map(str, given)])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert capsys.readouterr().out.startswith("predicted 46 of 48 rows")
    names = ["uid", "labels", "scores", "probabilities", "decisions", "set", "set_probabilities"]
    assert pq.read_table(tmp_path / "out").column_names == names
