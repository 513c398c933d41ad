"""What `train`, `evaluate` and `calibrate` take for a data set, a run and a configuration, and what cannot be trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import TINY, colours, tiny_config

import xmc
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.errors import ConfigError, DataError, InputError, StoreError

TEXTS = [f"item {row}" for row in range(20)]
EMPTY: list[list[int]] = [[]] * 20
EVERY = [[0]] * 20


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ({"splits": {"train": (TEXTS, EMPTY)}}, {}, "their lists of labels are empty"),
        (
            {"splits": {"train": (TEXTS, EMPTY)}, "rejected": {"train": EVERY}},
            {},
            "20 pairs are rejected or of relevance 0, and no others are given",
        ),
        (
            {"splits": {"train": (TEXTS, EVERY)}, "filters": {"train": np.array([[row, 0] for row in range(20)])}},
            {},
            "the filter of train takes each of them out",
        ),
        (
            {"splits": {"train": (TEXTS, EMPTY)}},
            {"validation": 0.5},
            "those that are not held out for validation or calibration have none",
        ),
    ],
)
def test_training_without_one_positive_is_refused(
    given: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data = Dataset.from_lists("nothing", ["cat", "dog"], **given)
    with pytest.raises(DataError, match=f"have no positive label: {message}. There is nothing to learn from"):
        xmc.train(data, tiny_config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_names_and_directories_are_taken(tmp_path: Path) -> None:
    data, run, config = tmp_path / "data", tmp_path / "run", tmp_path / "config.yaml"
    colours().save(data)
    config.write_text(TrainConfig.from_mapping(TINY).to_yaml())
    xmc.train(str(data), str(config), run)
    values = xmc.evaluate(str(run), str(data)).values
    assert values == xmc.evaluate(xmc.Retriever.load(run), Dataset.load(data)).values
    assert xmc.evaluate(run, data).values["P@1"] > 90
    xmc.calibrate(xmc.Retriever.load(run), str(data), "test")
    with pytest.raises(InputError, match=r"it must be a Retriever, but is '.*run': load it with Retriever.load"):
        xmc.calibrate(str(run), str(data), "test")  # type: ignore[arg-type]


def test_what_is_neither_is_an_error_of_xmc(tmp_path: Path) -> None:
    for given in ("dd", Path("dd")):
        with pytest.raises(DataError, match="dd is neither a shipped data set"):
            xmc.train(given)
    with pytest.raises(StoreError, match="dd does not exist; name the directory of a saved run"):
        xmc.evaluate("runs/dd", "dd")
    for other in (None, 5, ["a"]):
        with pytest.raises(InputError, match="A data set must be a Dataset"):
            xmc.train(other)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="A retriever must be a Retriever or a run directory"):
            xmc.evaluate(other, "wordnet-8k")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="the name of a shipped one or a directory, but is of type"):
            Dataset.load(other)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="A run is named by its directory, but given is"):
            xmc.Retriever.load(other)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"must be a TrainConfig or a YAML file, but is a dict; TrainConfig.from_mapping"
    ):
        xmc.train(colours(), {"epochs": 3}, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no\.yaml cannot be read"):
        xmc.train(colours(), tmp_path / "no.yaml", tmp_path / "run")
