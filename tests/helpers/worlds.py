"""Small worlds to train on: the shipped data set cut down, and a made-up one that is easy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import xmc
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.storage.manifests import LOG

TINY = {
    "encoder": {"kind": "static", "dimension": 32, "table_rows": 4096, "weight_slots": 4096},
    "objective": {"temperature": 0.1},
    "optimizer": {"learning_rate": {"encoder": 0.02, "feature_weights": 0.2, "label_vectors": 0.02}},
    "epochs": 4,
    "batch_size": 64,
}


def tiny_config(**changes: object) -> TrainConfig:
    """A static encoder that trains in a second or two."""
    return TrainConfig.from_mapping({**TINY, **changes})


def wordnet_part(queries: int = 1500) -> Dataset:
    """The first training queries of wordnet-8k, and 200 test queries, with all of its labels."""
    data = Dataset.load("wordnet-8k")
    splits = {}
    for name, count in (("train", queries), ("test", 200)):
        split = data.split(name).take(np.arange(count))
        lists = [row.tolist() for row in np.split(split.positives.indices, split.positives.indptr[1:-1])]
        splits[name] = (split.texts.to_pylist(), lists)
    pairs = data.filter("test")
    return Dataset.from_lists(
        "wordnet-part",
        data.labels.texts.to_pylist(),
        splits,
        label_uids=data.labels.uids.to_pylist(),
        filters={"test": pairs[pairs[:, 0] < 200]},
    )


COLOURS = ("red", "green", "blue", "black", "white", "brown", "grey", "pink", "purple", "orange", "yellow", "cyan")


def colours(names: Sequence[str] = COLOURS) -> Dataset:
    """Queries that name one or two of twelve colours, labels that are these colours: solved by reading the words."""
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 400), ("test", 100)):
        chosen = [sorted(rng.choice(12, size=rng.integers(1, 3), replace=False).tolist()) for _ in range(count)]
        splits[split] = ([f"item {i} " + " and ".join(names[c] for c in row) for i, row in enumerate(chosen)], chosen)
    return Dataset.from_lists("colours", list(names), splits, label_uids=[name.upper() for name in names])


def logged_steps(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log that are of steps."""
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [line for line in lines if "loss" in line]


KEPT_ASIDE = 0.3
"""Share of the training queries that `calibrated_run` keeps aside."""


def texts_of_split(data: Dataset, split: str = "test") -> list[str]:
    """The texts of a split's queries."""
    return list(data.split(split).texts.to_pylist())


def calibrated_run(data: Dataset, directory: Path, candidates: int) -> Path:
    """A run that kept three tenths of its training queries aside, calibrated on them."""
    xmc.train(data, tiny_config(epochs=6, calibration=KEPT_ASIDE), directory)
    retriever = xmc.Retriever.load(directory)
    xmc.calibrate(retriever, data, candidates=candidates)
    retriever.save(directory, overwrite=True)
    return directory
