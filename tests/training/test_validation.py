"""Evaluation of held-out queries in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import colours, tiny_config

import xmc
from xmc.config.validation import METRICS
from xmc.data.dataset import Dataset
from xmc.data.evidence import CandidateSets, LabelBags, Votes
from xmc.data.held_out import uses_of_queries
from xmc.encoders.dual import build_encoder
from xmc.errors import ConfigError, DataError
from xmc.evaluation.held_aside import queries_to_fit_on
from xmc.storage.manifests import LOG
from xmc.training.data import prepare


def filtered(base: Dataset, rows: np.ndarray) -> Dataset:
    """The data, where the train filter names every positive of some queries but the first."""
    splits, pairs = {}, []
    for name in base.splits:
        split = base.split(name)
        lists = [split.positives[row].indices.tolist() for row in range(len(split))]
        splits[name] = (split.texts.to_pylist(), lists)
        if name == "train":
            pairs = [(row, label) for row in rows.tolist() for label in lists[row][1:]]
    return Dataset.from_lists(
        "filtered", base.labels.texts.to_pylist(), splits, label_uids=base.labels.uids.to_pylist(),
        filters={"train": np.array(pairs)},
    )  # fmt: skip


def best(directory: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((directory / "metrics.json").read_text())["validation"]
    return found


def test_pairs_of_the_train_filter_count_nowhere_in_validation(tmp_path: Path) -> None:
    """A model that finds every positive but what is excluded has found all."""
    base, config = colours(), tiny_config(epochs=8, validation=0.25)
    held_out = uses_of_queries(400, 0.25, 0.0, config.seed).validation
    data = filtered(base, held_out)
    xmc.train(data, config, tmp_path / "run")
    values = best(tmp_path / "run")
    assert values["P@1"] > 95
    assert values["P@3"] == pytest.approx(100 / 3, abs=2)  # one positive each; the excluded ones are not found again
    assert set(METRICS) == set(values)
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert all(set(METRICS) == set(line["validation"]) for line in lines if "validation" in line)


def with_trusted(base: Dataset, rows: int) -> Dataset:
    """The data with a third split, of the first training queries, whose filter takes a label of the second one away."""
    splits = {}
    for name in ("train", "test", "trusted"):
        split = base.split("train").take(np.arange(rows)) if name == "trusted" else base.split(name)
        lists = [split.positives[row].indices.tolist() for row in range(len(split))]
        splits[name] = ([f"{text} {name}" for text in split.texts.to_pylist()], lists)
    return Dataset.from_lists(
        "trusted",
        base.labels.texts.to_pylist(),
        splits,
        filters={"trusted": np.array([[1, splits["trusted"][1][1][0]]])},
    )


def test_a_trusted_split_takes_the_place_of_a_share_of_train(tmp_path: Path) -> None:
    data = with_trusted(colours(), 120)
    config = tiny_config(epochs=2, validation={"split": "trusted"}, calibration=0.1)
    prepared = prepare(data, config, build_encoder(config, 0, torch.Generator()))
    assert len(prepared.training) == 360
    assert prepared.validation is not None
    assert prepared.validation.texts.to_pylist() == data.split("trusted").texts.to_pylist()
    assert prepared.validation_filter.tolist() == data.filter("trusted").tolist()
    xmc.train(data, config, tmp_path / "run")
    retriever = xmc.Retriever.load(tmp_path / "run")
    assert best(tmp_path / "run")["P@1"] == pytest.approx(xmc.evaluate(retriever, data, "trusted")["P@1"], abs=1)
    aside, on = queries_to_fit_on(retriever, data)
    assert (on.split, on.share, len(aside.queries)) == ("trusted", 1.0, 120)
    few = with_trusted(colours(), 50)
    xmc.train(few, config, tmp_path / "few")
    with pytest.raises(DataError, match="at least 100 are needed"):  # of the 40 that are kept for calibration
        queries_to_fit_on(xmc.Retriever.load(tmp_path / "few"), few)
    with pytest.raises(
        DataError, match=r"validation.split is 'dev', but the data set 'trusted' has the splits train, test"
    ):
        xmc.train(data, tiny_config(validation={"split": "dev"}), tmp_path / "none")


def test_queries_that_are_not_labelled_validate_nothing() -> None:
    data = with_trusted(colours(), 120)
    config = tiny_config(validation={"split": "trusted"})
    for labelled in (np.arange(120) > 0, np.arange(120) < 0):
        known = data.split("trusted").positives.multiply(labelled[:, None]).tocsr().astype(np.float32)
        known.eliminate_zeros()
        partly = data.with_evidence("trusted", positives=known, labelled=labelled)
        model = build_encoder(config, 0, torch.Generator())
        if labelled.any():
            prepared = prepare(partly, config, model)
            assert prepared.validation is not None
            assert len(prepared.validation) == 119
            assert prepared.validation_filter.tolist() == [[0, int(data.filter("trusted")[0, 1])]]
        else:
            with pytest.raises(DataError, match="None of the 120 queries is labelled"):
                prepare(partly, config, model)
    nothing = data.split("train").positives * 0
    nothing.eliminate_zeros()
    unlabelled = data.with_evidence("train", positives=nothing, labelled=np.zeros(400, bool))
    with pytest.raises(DataError, match="no positive label: none of them is labelled"):
        prepare(unlabelled, tiny_config(), build_encoder(config, 0, torch.Generator()))


def test_a_trusted_split_and_a_share_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match=r"validation.share is 0.1 and validation.split is 'trusted'"):
        tiny_config(validation={"split": "trusted", "share": 0.1})
    with pytest.raises(ConfigError, match=r"validation.split is 'train', which training learns from"):
        tiny_config(validation={"split": "train"})
    assert tiny_config(validation={"split": "trusted"}, rerank="logistic").validation.is_on
    with pytest.raises(ConfigError, match=r"or name a validation.split"):
        tiny_config(rerank="logistic")


def test_evidence_and_unlabelled_queries_are_training_data() -> None:
    """Of queries that are not labelled none is held out; what is said of those held out is left out."""
    base = colours()
    rng = np.random.default_rng(0)
    labelled = rng.random(400) < 0.5
    known = base.split("train").positives.multiply(labelled[:, None]).tocsr().astype(np.float32)
    known.eliminate_zeros()
    data = base.with_evidence(
        "train",
        positives=known,
        labelled=labelled,
        votes=Votes.from_arrays(np.arange(400), np.arange(400) % 12, ["rule"] * 400, np.ones(400)),
        candidate_sets=CandidateSets.from_lists(np.arange(400), [[0, 1]] * 400, [1] * 400, [1] * 400),
        label_bags=LabelBags.from_lists(np.arange(400).reshape(-1, 2).tolist(), [[3]] * 200, [[1]] * 200),
    )
    config = tiny_config(validation=0.2, calibration=0.2)
    prepared = prepare(data, config, build_encoder(config, 0, torch.Generator()))
    uses = uses_of_queries(400, 0.2, 0.2, config.seed, labelled)
    assert prepared.validation is not None
    assert prepared.validation.labelled is not None
    assert prepared.validation.labelled.all()
    targets = prepared.known.targets
    assert targets.labelled is not None
    assert targets.labelled.tolist() == labelled[uses.training].tolist()
    assert prepared.votes is not None
    assert prepared.votes.queries.tolist() == list(range(len(uses.training)))
    assert prepared.votes.labels.tolist() == (uses.training % 12).tolist()
    assert prepared.candidate_sets is not None
    assert len(prepared.candidate_sets) == len(uses.training)
    whole = [pair for pair in range(200) if {2 * pair, 2 * pair + 1} <= set(uses.training.tolist())]
    assert prepared.label_bags is not None
    assert uses.training[prepared.label_bags.queries[::2]].tolist() == [2 * pair for pair in whole]
    plain = prepare(base, tiny_config(), build_encoder(tiny_config(), 0, torch.Generator()))
    assert (plain.votes, plain.candidate_sets, plain.label_bags, plain.known.targets.labelled) == (None,) * 4
