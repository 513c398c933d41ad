"""Training on texts of several passages, whose labels are known of the whole alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from worlds import COLOURS, colours, tiny_config

import xmc
from xmc.config import BagsConfig
from xmc.data.dataset import Dataset
from xmc.encoders.registry import ENCODERS
from xmc.errors import ConfigError
from xmc.training.bags import nearest_passages
from xmc.training.passages import passages_of_split

SEPARATED: dict[str, Any] = {"data": {"bags": {"separator": " | "}}}


@pytest.fixture(scope="module")
def bags() -> Dataset:
    """The world of colours, its training queries joined in fours."""
    data = colours()
    train = data.split("train")
    texts = train.texts.to_pylist()
    lists = [row.tolist() for row in np.split(train.positives.indices, train.positives.indptr[1:-1])]
    fours = [range(start, start + 4) for start in range(0, len(texts), 4)]
    joined = [" | ".join(texts[row] for row in rows) for rows in fours]
    return Dataset.from_lists(
        "bags",
        list(COLOURS),
        {"train": (joined, [sorted({label for row in rows for label in lists[row]}) for rows in fours])},
        label_uids=data.labels.uids.to_pylist(),
    )


def test_each_label_of_a_text_goes_to_its_nearest_passage() -> None:
    rng = np.random.default_rng(0)
    bags = np.repeat(np.arange(30), rng.integers(1, 5, 30))
    pairs = [(passage, label) for passage, bag in enumerate(bags) for label in range(bag % 4)]
    pairs = [pairs[place] for place in rng.permutation(len(pairs))]
    passages, labels = np.array(pairs).T
    scores = rng.integers(0, 4, len(pairs)).astype(np.float32)  # with ties
    kept = nearest_passages(scores, passages, labels, bags)
    for bag in range(30):
        for label in range(bag % 4):
            places = [i for i, (passage, other) in enumerate(pairs) if bags[passage] == bag and other == label]
            best = min(places, key=lambda i: (-scores[i], passages[i]))
            assert [i for i in places if kept[i]] == [best]


def test_texts_are_cut_where_it_is_said(bags: Dataset) -> None:
    encoder = ENCODERS["static"].from_config(tiny_config().encoder, torch.Generator())
    split = bags.split("train").take(np.arange(2))
    passages, rows = passages_of_split(split, BagsConfig(separator=" | "), encoder)
    assert rows.tolist() == [0] * 4 + [1] * 4
    assert passages.texts.to_pylist() == [text for whole in split.texts.to_pylist() for text in whole.split(" | ")]
    assert (passages.positives != split.positives[rows]).nnz == 0
    words, rows = passages_of_split(split, BagsConfig(tokens=5), encoder)
    assert words.texts[0].as_py() == " ".join(split.texts[0].as_py().split()[:5])
    assert rows.tolist() == sorted(rows.tolist())


def test_single_texts_are_learned_from_bags(bags: Dataset, tmp_path: Path) -> None:
    xmc.train(bags, tiny_config(epochs=12, **SEPARATED), tmp_path / "bags")
    learned = xmc.evaluate(xmc.Retriever.load(tmp_path / "bags"), colours()).values
    assert learned["P@1"] > 95


def test_a_resumed_run_is_that_of_one_go(bags: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(epochs=4, checkpoint={"steps": 4, "minutes": None}, **SEPARATED)

    class Stops:
        def on_step(self, step: int, values: Any) -> None:
            if step == 15:  # within the third epoch, of six steps
                raise RuntimeError("no more")

    xmc.train(bags, config, tmp_path / "whole")
    with pytest.raises(xmc.XMCError):
        xmc.train(bags, config, tmp_path / "broken", callbacks=[Stops()])
    xmc.train(bags, config, tmp_path / "broken", resume=True)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == resumed.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(values, resumed[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"bags": {"separator": "|", "tokens": 8}}}, "leave one of them out"),
        ({"data": {"bags": {"tokens": 8, "stride": 9}}}, "at most data.bags.tokens"),
        ({"data": {"bags": {"stride": 9}}}, "at most data.bags.tokens"),
        ({**SEPARATED, "negatives": "sampled"}, "Sampled negatives"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)
