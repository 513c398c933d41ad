"""Files of a re-ranker and of a calibration whose checksums fit and whose content does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xmc.errors import StoreError
from xmc.search.rerank.logistic import LogisticModel
from xmc.search.rerank.models import RerankModel
from xmc.search.rerank.trees import TreesModel

TREE: dict[str, Any] = {
    "roots": np.array([0], np.int32),
    "feature": np.array([1, -1, -1], np.int32),
    "threshold": np.array([0.5, 0, 0], np.float32),
    "left": np.array([1, 0, 0], np.int32),
    "right": np.array([2, 0, 0], np.int32),
    "missing_left": np.array([True, False, False]),
    "value": np.array([0, 1, -1], np.float64),
}
LOGISTIC = LogisticModel(np.zeros(2), np.ones(2), np.ones(2), 0.5)


def crafted(directory: Path, model: RerankModel, change: dict[str, Any]) -> Any:
    """What is read of the model with some of its tensors exchanged."""
    model.save(directory)
    file = directory / f"{model.name}.safetensors"
    save_file(
        {name: np.asarray(value) for name, value in (load_file(file) | change).items() if value is not None}, file
    )
    return type(model).load(directory)


def test_whole_ones_are_read(tmp_path: Path) -> None:
    values = np.array([[0, 0], [0, 1], [0, np.nan]], np.float32)
    assert crafted(tmp_path, TreesModel(TREE, 0.0, 2), {}).log_odds(values).tolist() == [1, -1, 1]
    assert crafted(tmp_path, LOGISTIC, {}).log_odds(values).tolist() == [0.5, 1.5, 0.5]


@pytest.mark.parametrize(
    "change",
    [
        {"left": np.array([7, 0, 0], np.int32)},
        {"right": np.array([-2, 0, 0], np.int32)},
        {"left": np.array([0, 0, 0], np.int32)},  # round and round
        {"feature": np.array([2, -1, -1], np.int32)},
        {"feature": np.array([1, -1], np.int32)},
        {"roots": np.array([3], np.int32)},
        {"roots": np.array([-1], np.int32)},
        {"roots": np.array(0, np.int32)},
        {"left": np.array([1, 0, 0], np.int64)},
        {"value": np.array([0, np.nan, 0])},
        {"width": np.array([1])},
        {"constant": np.array(1.0)},
        {"further": np.array([1])},
        {"threshold": None},
    ],
)
def test_trees_that_lead_nowhere(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=r"trees\.safetensors"):
        crafted(tmp_path, TreesModel(TREE, 0.0, 2), change)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": np.zeros(3)},
        {"weights": np.zeros(2, np.int32)},
        {"weights": np.array(1.0)},
        {"deviation": np.zeros(2)},
        {"bias": np.array([np.inf])},
        {"bias": None},
    ],
)
def test_logistic_models_that_do_not_fit_together(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=r"logistic\.safetensors"):
        crafted(tmp_path, LOGISTIC, change)
