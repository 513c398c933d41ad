"""What calibration refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from worlds import colours, texts_of_split, tiny_config

import xmc
from xmc.calibration.sets import Wanted
from xmc.data.dataset import Dataset
from xmc.errors import DataError, InputError
from xmc.evaluation.check import check
from xmc.search.moment import Moment


def test_only_queries_that_were_kept_aside(run: Path, data: Dataset, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    with pytest.raises(DataError, match="was trained on the split 'train' of 'wordnet-part'"):
        xmc.calibrate(retriever, data, "train")
    with pytest.raises(DataError, match="has no split 'other', only train, test"):
        xmc.calibrate(retriever, data, "other")
    with pytest.raises(DataError, match="the run was not trained on this data set"):
        xmc.calibrate(retriever, colours())
    whole = tmp_path / "whole"
    xmc.train(data, tiny_config(epochs=1), whole)
    with pytest.raises(DataError, match=r"trained on all of 'train'\. Train it with calibration=0\.1"):
        xmc.calibrate(xmc.Retriever.load(whole), data)
    train = data.split("train")
    lists = [row.indices.tolist() for row in train.positives]
    twice = Dataset.from_lists(
        "twice",
        data.labels.texts.to_pylist(),
        {name: (train.texts.to_pylist(), lists) for name in ("train", "calibration")},
        label_uids=data.labels.uids.to_pylist(),
    )
    with pytest.raises(
        DataError, match="1,500 of the 1,500 queries of the split 'calibration' of 'twice' are training"
    ):
        xmc.calibrate(retriever, twice)


def test_too_little_to_learn_from_is_refused(run: Path, data: Dataset) -> None:
    retriever = xmc.Retriever.load(run)
    uids, texts = data.labels.uids.to_pylist(), texts_of_split(data)

    def made(count: int, labels: list[int]) -> Dataset:
        return Dataset.from_lists("made", uids, {"test": (texts[:count], [labels] * count)}, label_uids=uids)

    with pytest.raises(DataError, match="has 99 queries to learn from; at least 100 are needed"):
        xmc.calibrate(retriever, made(99, [0]), "test")
    with pytest.raises(DataError, match="has no query with a true label, so there is nothing to calibrate on"):
        xmc.calibrate(retriever, made(150, []), "test")
    for seed in (2**63, -(2**64)):
        with pytest.raises(InputError, match=r"seed must be a number of 64 bits, but is -?\d+"):
            xmc.calibrate(retriever, data, seed=seed)
    for option, value in (("norm", 0.5), ("norm", float("nan")), ("label_dependency", -1.0), ("candidates", 0)):
        with pytest.raises(InputError, match=f"{option.replace('_', ' ')} must be at least"):
            xmc.calibrate(retriever, data, **{option: value})
    with pytest.raises(DataError, match="has no split 'train'; leave it at 0"):
        xmc.calibrate(retriever, made(150, [3]), "test", label_dependency=0.1)
    without = xmc.calibrate(retriever, made(150, [3]), "test", candidates=9)  # no training split: no frequencies
    assert "by frequency" not in without.probabilities.method


def test_calls_that_cannot_be_answered(run: Path, data: Dataset, tmp_path: Path) -> None:
    retriever, texts = xmc.Retriever.load(run), texts_of_split(data)[:2]
    for call in (retriever.exact().predict_proba, retriever.exact().decide):
        with pytest.raises(InputError, match="not calibrated; `xmc calibrate`"):
            call(texts)
    with pytest.raises(InputError, match="k must be at most the 60 candidates"):
        retriever.predict_proba(texts, k=61)
    for significance in (0.0, 1.0, -0.2, float("nan")):
        with pytest.raises(InputError, match="significance must be a share between 0 and 1, without them"):
            retriever.predict_sets(texts, significance=significance)
    with pytest.raises(
        InputError, match=r"recall of 0.99 cannot be guaranteed by 60 candidates: the highest is 0\.\d+"
    ):
        retriever.predict_sets(texts, recall=0.99)
    with pytest.raises(InputError, match=r"significance of 0\.001 needs 999 calibration queries or more"):
        retriever.predict_sets(texts, significance=0.001)
    with pytest.raises(InputError, match=r"false positive share of 0\.001 cannot be guaranteed"):
        retriever.predict_sets(texts, false_positive_share=0.001)
    with pytest.raises(InputError, match="must not be above automatic"):
        retriever.decide(texts, automatic=0.2, person=0.4)
    with pytest.raises(InputError, match="There are 1 label sets for 2 queries"):
        retriever.p_values(texts, [["x"]])
    with pytest.raises(InputError, match="no label 'x' in this retriever"):
        retriever.p_values(texts[:1], [["x"]])
    with pytest.raises(InputError, match="not calibrated; `xmc calibrate`"):
        check(retriever.exact(), data)
    assert retriever.predict_sets([], recall=0.5) == retriever.predict_sets([], significance=0.1) == []


def test_what_cannot_be_given_is_refused_before_the_search(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = xmc.Retriever.load(run)

    def search(*arguments: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(Moment, "answer", search)
    with pytest.raises(InputError, match=r"significance of 0\.001 needs 999 calibration queries or more"):
        retriever.predict_sets(["a"], significance=0.001)
    with pytest.raises(InputError, match="limit must be at least 0"):
        retriever.predict_sets(["a"], significance=0.2, limit=-1)
    with pytest.raises(InputError, match=r"recall of 0\.99 cannot be guaranteed"):
        retriever.predict_sets(["a"], recall=0.99)
    with pytest.raises(InputError, match=r"significance of 0\.001 needs"):
        retriever.answer(["a"], sets=Wanted(significance=0.001))


def test_options_that_ask_for_nothing_go_with_probabilities(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    plain = retriever.answer(["a"], 3, probabilities=True)
    nothing = {"include": None, "exclude": None, "where": None, "rescore": None, "diversity": 0.0}
    again = retriever.answer(["a"], 3, probabilities=True, **nothing)  # type: ignore[arg-type]
    assert again.to_dict() == plain.to_dict()
    everything = np.ones(len(retriever), bool)
    with pytest.raises(InputError, match="leave out include, rescore, diversity, or probabilities"):
        retriever.answer(["a"], probabilities=True, include=everything, where=None, rescore=0, diversity=0.5)
