"""Evaluation of held-out queries in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.config.validation import METRICS
from xmc.data.dataset import Dataset
from xmc.data.held_out import uses_of_queries
from xmc.storage.manifests import LOG


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
