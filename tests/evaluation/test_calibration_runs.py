"""Calibration of real runs: which queries it may use, what the retriever then gives, what does not change it, files, drift."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner
from worlds import KEPT_ASIDE, texts_of_split, tiny_config

import xmc
from xmc.cli import app
from xmc.data.dataset import Dataset
from xmc.data.held_out import uses_of_queries
from xmc.encoders.dual import build_encoder
from xmc.errors import ConfigError, DataError, StoreError
from xmc.evaluation.check import check, check_texts
from xmc.search.calibrated import CalibrationFit
from xmc.search.labels import LabelVersion
from xmc.training.data import prepare


@pytest.fixture
def retriever(run: Path) -> xmc.Retriever:
    return xmc.Retriever.load(run)


def test_training_does_not_see_what_it_keeps_aside(data: Dataset) -> None:
    config = tiny_config(calibration=0.2, validation=0.1)
    uses = uses_of_queries(1500, 0.1, 0.2, config.seed)
    assert [len(uses.training), len(uses.validation), len(uses.calibration)] == [1080, 120, 300]
    assert sorted(np.concatenate([uses.training, uses.validation, uses.calibration]).tolist()) == list(range(1500))
    prepared = prepare(data, config, build_encoder(config, len(data.labels), torch.Generator()))
    uids = data.split("train").uids
    assert prepared.training.uids.to_pylist() == uids.take(uses.training).to_pylist()
    assert prepared.validation is not None
    assert prepared.validation.uids.to_pylist() == uids.take(uses.validation).to_pylist()
    other = uses_of_queries(1500, 0.1, 0.2, 1)
    assert not np.array_equal(other.calibration, uses.calibration)
    with pytest.raises(ConfigError, match=r"calibration must be a share in \[0, 1\), but is 1"):
        tiny_config(calibration=1.0)


def test_probabilities_sets_and_decisions_belong_together(retriever: xmc.Retriever, data: Dataset) -> None:
    texts = texts_of_split(data)
    labels, _ = retriever.predict(texts, k=60)
    found, probabilities = retriever.predict_proba(texts, k=60)
    assert found.tolist() == labels.tolist()
    assert probabilities.dtype == np.float32
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert retriever.predict_proba(texts, k=3)[1].tolist() == probabilities[:, :3].tolist()
    calibration = retriever.calibration
    assert calibration is not None
    threshold = calibration.misses.at(Fraction(1, 2))
    for query, own in enumerate(retriever.predict_sets(texts, recall=0.5)):
        inside = probabilities[query] >= np.float32(threshold)
        assert set(own.labels) == set(labels[query][inside])
        assert (np.diff(own.probabilities) <= 0).all()
        assert own.whole == inside.all()
    decisions = retriever.decide(texts, automatic=0.6, person=0.2)
    for query, decision in enumerate(decisions):
        assert set(decision.automatic) == set(labels[query][probabilities[query] >= np.float32(0.6)])
        assert set(decision.automatic + decision.person) == set(labels[query][probabilities[query] >= np.float32(0.2)])
    regions = retriever.predict_sets(texts[:20], significance=0.2, limit=5)
    for query, region in enumerate(regions):
        assert len(region.sets) == min(5, region.count)
        again = retriever.p_values([texts[query]] * len(region.sets), region.sets)
        assert again.tolist() == pytest.approx(region.p_values)
        assert region.credibility >= region.p_values[0] > 0.2
    small, large = (retriever.predict_sets(texts, false_positive_share=share) for share in (0.3, 0.6))
    assert all(set(one.labels) <= set(other.labels) for one, other in zip(small, large, strict=True))


def test_guarantees_hold_on_test_queries(retriever: xmc.Retriever, data: Dataset) -> None:
    checked = check(retriever, data)
    assert checked.holds
    assert "holds on these queries" in checked.sentences()[0]
    names = [one.name for one in checked.checks]
    assert "significance=0.1" in names
    truth, uids = data.split("test").positives, np.array(data.labels.uids.to_pylist(), object)
    sets = [uids[row.indices].tolist() for row in truth]
    inside = retriever.p_values(texts_of_split(data), sets) > 0.2
    found = next(one for one in checked.checks if one.name == "significance=0.2").found
    assert inside.mean() == pytest.approx(found, abs=0.03)  # without the data set's filter


def test_a_saved_calibration_is_the_same(
    run: Path, retriever: xmc.Retriever, data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = texts_of_split(data)[:50]
    again = xmc.Retriever.load(run)
    fresh = xmc.calibrate(again, data, candidates=60)
    kept = retriever.calibration
    assert kept is not None
    assert kept.to_dict() == fresh.to_dict()
    assert retriever.predict_proba(texts)[1].tolist() == again.predict_proba(texts)[1].tolist()
    retriever.save(tmp_path / "copy")
    assert xmc.Retriever.load(tmp_path / "copy").predict_sets(texts, recall=0.5)[0].labels
    described = json.loads((run / "calibration" / "calibration.json").read_text())
    assert described["source"]["fingerprint"] == data.fingerprint
    assert described["source"]["queries"] == 450
    listed = json.loads((run / "manifest.json").read_text())["files"]
    assert {"calibration/calibration.json", "calibration/calibration.safetensors"} <= set(listed)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    file = broken / "calibration" / "calibration.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    outdated = xmc.Retriever.load(tmp_path / "copy")
    assert outdated.calibration is not None
    weights = np.zeros((2, 2))
    object.__setattr__(outdated.calibration.probabilities, "weights", weights)
    outdated.save(tmp_path / "copy", overwrite=True)
    assert xmc.Retriever.load(tmp_path / "copy").calibration is None  # which can be calibrated again
    assert "is of another version of xmc" in caplog.text
    planted = tmp_path / "planted"
    shutil.copytree(run, planted)
    manifest = json.loads((planted / "manifest.json").read_text())
    manifest["files"] = {name: one for name, one in manifest["files"].items() if not name.startswith("calibration/")}
    (planted / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="is not among the files"):  # nobody vouches for these
        xmc.Retriever.load(planted)
    with pytest.raises(StoreError, match=r"calibration\.safetensors has \d+ bytes where the manifest says"):
        xmc.Retriever.load(broken)


def test_label_dependency_is_kept_and_changes_regions(run: Path, data: Dataset, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    xmc.calibrate(retriever, data, candidates=20, label_dependency=0.3)
    retriever.save(tmp_path / "run")
    again = xmc.Retriever.load(tmp_path / "run")
    texts = texts_of_split(data)[:5]
    one, other = (given.predict_sets(texts, significance=0.3, limit=3) for given in (retriever, again))
    assert [region.sets for region in one] == [region.sets for region in other]
    assert all(region.count <= region.at_most for region in one)
    for region, text in zip(one, texts, strict=True):
        assert again.p_values([text] * len(region.sets), region.sets).tolist() == pytest.approx(region.p_values)


def test_permuting_labels_or_queries_changes_nothing(run: Path, data: Dataset) -> None:
    retriever = xmc.Retriever.load(run)
    uses = uses_of_queries(1500, 0, KEPT_ASIDE, 0)
    learned, aside = (data.split("train").take(rows) for rows in (uses.training, uses.calibration))
    names, texts = data.labels.uids.to_pylist(), texts_of_split(data)[:100]

    def calibrated(label_order: np.ndarray, query_order: np.ndarray) -> xmc.Retriever:
        place = np.argsort(label_order)
        uids = [names[label] for label in label_order]
        splits = {}
        for split, queries in (("train", learned), ("aside", aside.take(query_order))):
            lists = [sorted(place[row.indices].tolist()) for row in queries.positives]
            splits[split] = (queries.texts.to_pylist(), lists)
        query_uids = {"aside": [aside.uids[int(row)].as_py() for row in query_order]}
        permuted = Dataset.from_lists("permuted", uids, splits, label_uids=uids, query_uids=query_uids)
        own = xmc.Retriever.from_model(
            retriever.model,
            uids,
            uids,
            retriever.config,
            "exact",
            np.ascontiguousarray(retriever.embeddings[label_order]),
        )
        xmc.calibrate(own, permuted, "aside", candidates=60)
        return own

    plain, rng = (np.arange(len(names)), np.arange(len(aside))), np.random.default_rng(0)
    one = calibrated(*plain)
    other = calibrated(rng.permutation(len(names)), rng.permutation(len(aside)))
    np.testing.assert_allclose(one.predict_proba(texts)[1], other.predict_proba(texts)[1], rtol=1e-3)
    for recall in (0.4, 0.5):
        pairs = zip(one.predict_sets(texts, recall=recall), other.predict_sets(texts, recall=recall), strict=True)
        assert (
            sum(set(a.labels) != set(b.labels) for a, b in pairs) <= 1
        )  # a score on the threshold may round the other way
    regions = zip(*(given.predict_sets(texts[:5], significance=0.2, limit=3) for given in (one, other)), strict=True)
    for a, b in regions:
        assert a.count == pytest.approx(b.count, rel=0.05)
        assert a.credibility == pytest.approx(b.credibility, abs=0.01)


def test_a_label_that_is_never_retrieved_changes_nothing(run: Path, data: Dataset) -> None:
    texts = texts_of_split(data)[:50]
    one, other = xmc.Retriever.load(run), xmc.Retriever.load(run)
    far = -one.embed_queries([*texts, *data.split("train").texts.to_pylist()]).mean(axis=0, keepdims=True)
    state = np.concatenate([other.embeddings, far / np.linalg.norm(far)]).astype(np.float32)
    uids, label_texts = [*other.labels.uids.to_pylist(), "far"], [*other.labels.texts.to_pylist(), "far"]
    other = xmc.Retriever.from_model(one.model, uids, label_texts, one.config, "exact", state)
    other.metrics = one.metrics
    assert "far" not in other.predict(texts, k=60)[0]
    calibration = xmc.calibrate(other, data, candidates=60)
    assert calibration.brier == one.calibration.brier  # type: ignore[union-attr]
    assert one.predict_proba(texts)[1].tolist() == other.predict_proba(texts)[1].tolist()
    assert [a.labels for a in one.predict_sets(texts, recall=0.5)] == [
        b.labels for b in other.predict_sets(texts, recall=0.5)
    ]
    assert one.predict_sets(texts[:5], significance=0.2) == other.predict_sets(texts[:5], significance=0.2)


def test_labels_added_after_calibration_are_noticed(run: Path, data: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    retriever, texts = xmc.Retriever.load(run), texts_of_split(data)[:3]
    retriever.predict_proba(texts)
    assert not caplog.records
    retriever.add_labels(["a kind of thing that is new"])
    for _ in range(2):
        retriever.predict_proba(texts)
    assert [record.getMessage() for record in caplog.records] == [
        "labels or index were changed after calibration; what it guarantees is for those before"
    ]
    caplog.clear()
    retriever = xmc.Retriever.load(run)
    last = retriever.labels.uids[-1].as_py()
    retriever.update_labels(["another text"], [last])
    assert not retriever.fits_calibration()
    assert len(caplog.records) == 1
    caplog.clear()
    retriever = xmc.Retriever.load(run)
    assert retriever.fits_calibration()
    retriever.reindex("HNSW16")
    retriever.predict_sets(texts, recall=0.5)
    assert len(caplog.records) == 1


def test_a_change_that_is_taken_back_fits_again(run: Path, data: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    retriever, texts = xmc.Retriever.load(run), texts_of_split(data)[:3]
    assert retriever.fits_calibration()
    for _ in range(2):
        retriever.add_labels(["a kind of thing that is new"])
        retriever.add_labels(["another"])
        assert not retriever.fits_calibration()
        retriever.remove_labels(["a kind of thing that is new"])
        assert not retriever.fits_calibration()
        retriever.remove_labels(["another"])
        assert retriever.fits_calibration()
    assert len(caplog.records) == 2  # each time that they come to differ
    design = retriever.index.design.name
    retriever.reindex("HNSW16")
    assert not retriever.fits_calibration()
    retriever.reindex(design)
    assert retriever.fits_calibration()
    retriever.predict_proba(texts)
    assert len(caplog.records) == 3


def test_no_thread_sees_half_of_a_comparison(retriever: xmc.Retriever) -> None:
    """While one thread compares changed labels with the calibration, another does not take the verdict of those before."""
    calibration, compared = retriever.require_calibration(), threading.Semaphore(0)
    going_on = threading.Event()

    class SlowlyRead(LabelVersion):
        @property
        def table(self) -> pa.Table:  # type: ignore[override]
            compared.release()
            assert going_on.wait(60)
            return super().table

    fit = CalibrationFit()
    assert fit.check(calibration, retriever.labels)
    last = retriever.labels.uids[-1].as_py()
    retriever.update_labels(["another text"], [last])
    changed = SlowlyRead(**{part.name: getattr(retriever.labels, part.name) for part in fields(LabelVersion)})
    verdicts: list[bool] = []

    def check_and_tell() -> None:
        verdicts.append(fit.check(calibration, changed))
        compared.release()

    threads = [threading.Thread(target=check_and_tell) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert compared.acquire(timeout=60)
    going_on.set()
    for thread in threads:
        thread.join()
    assert verdicts == [False, False]


def test_what_has_moved_is_said(run: Path, data: Dataset) -> None:
    retriever, test = xmc.Retriever.load(run), data.split("test")
    lists = [row.indices.tolist() for row in test.positives]
    uids, texts = data.labels.uids.to_pylist(), texts_of_split(data)

    def made(own: list[str], labels: list[list[int]]) -> Dataset:
        return Dataset.from_lists("newer", uids, {"test": (own, labels)}, label_uids=uids)

    # Labels that are somebody else's: the queries look the same, and guarantees fail.
    wrong = check(retriever, made(texts, lists[1:] + lists[:1]))
    assert not wrong.holds
    assert not wrong.drift.moved
    assert "no longer holds (recall=" in wrong.sentences()[0]
    # Texts that say little: scores fall.
    moved = check_texts(retriever, [f"{text[:3]} zzz" for text in texts])
    assert moved.drift.moved
    assert moved.sentences()[0].startswith("Queries have moved away")
    same = check_texts(retriever, texts)
    assert same.holds
    assert "without labels no more can be said" in same.sentences()[0]
    with pytest.raises(DataError, match="There are 50 queries to check by; at least 100 are needed"):
        check(retriever, made(texts[:50], lists[:50]))
    with pytest.raises(DataError, match="There are 2 queries to check by; at least 100 are needed"):
        check_texts(retriever, texts[:2])


def test_the_command(run: Path, data: Dataset, tmp_path: Path) -> None:
    data.save(tmp_path / "data")
    own = tmp_path / "run"
    shutil.copytree(run, own)
    done = CliRunner().invoke(app, ["calibrate", str(own), str(tmp_path / "data"), "--candidates", "40"])
    assert done.exit_code == 0, done.output
    for words in ("450 queries of wordnet-part, split calibration", "platt", "rank 1", "Deciding at 0.9 and 0.1"):
        assert words in done.output
    calibration = xmc.Retriever.load(own).calibration
    assert calibration is not None
    assert calibration.candidates == 40
    done = CliRunner().invoke(app, ["calibrate", str(own), str(tmp_path / "data"), "--check", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["holds"] is True
    done = CliRunner().invoke(app, ["index", str(own), "HNSW16"])
    assert "its calibration is for the index before" in done.output
    pq.write_table(pa.table({"text": ["zzz"] * 500}), tmp_path / "texts.parquet")
    done = CliRunner().invoke(app, ["calibrate", str(own), str(tmp_path / "texts.parquet"), "--check"])
    assert done.exit_code == 1
    assert "Queries have moved away" in done.output
    done = CliRunner().invoke(app, ["calibrate", str(own), str(tmp_path / "data"), "--split", "train"])
    assert isinstance(done.exception, DataError)
