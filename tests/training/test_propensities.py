"""Training that corrects binary cross-entropy for relevant labels that nobody marked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loss_formulas import assert_agree, cosines
from step_labels import world
from worlds import colours, tiny_config

import xmc
from xmc.config import TrainConfig
from xmc.errors import ConfigError, TrainingError
from xmc.kernels.losses import binary_cross_entropy
from xmc.metrics import propensities
from xmc.training.callbacks import Callback
from xmc.training.distributed import World
from xmc.training.negatives import StepLabels
from xmc.training.objective import Objective
from xmc.training.terms.losses import configured_propensities

A, B = 0.6, 2.6


def corrected(correction: str, **changes: Any) -> TrainConfig:
    loss = {"kind": "binary_cross_entropy", "propensities": correction, "propensity": [A, B]}
    return tiny_config(**{"objective.loss": loss, "negatives": "all", **changes})


@pytest.mark.parametrize("correction", ["none", "unbiased", "bound"])
def test_the_objective_is_the_corrected_loss(correction: str) -> None:
    """With the propensities of the training queries that are not held out, at every nested dimension."""
    config = corrected(correction, **{"objective.nested_dimensions": [4], "validation": 0.25, "normalize": False})
    _, _, data = world(**{"objective.loss": "binary_cross_entropy", "negatives": "all", "validation": 0.25})
    known, count = data.known, len(data.label_features)
    counts = np.bincount(data.training.positives.indices, minlength=count)
    given = torch.from_numpy(propensities(counts, len(data.training), A, B))
    found = configured_propensities(config, known.targets)
    options: dict[str, Any] = {}
    if correction == "none":
        assert found is None
    else:
        assert found is not None
        torch.testing.assert_close(found, given.float())
        assert float(found.max()) < 1
        options = {"propensities": found.double(), "bound": correction == "bound"}
    queries, labels, _ = cosines((5, count, 6))
    targets = known.batch(0, np.arange(5)).targets
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    rows = torch.arange(count)
    loss = Objective(config, 6, World(), propensities=found)(
        queries, labels, None, StepLabels(rows, rows, targets), slice(0, count), temperature
    )
    expected = [
        binary_cross_entropy(queries[:, :size], labels[:, :size], targets.positives, temperature, **options)
        for size in (4, 6)
    ]
    assert_agree(loss, torch.stack(expected).mean(), [queries, labels, temperature])


@pytest.mark.parametrize("negatives", ["all", "bank"])
def test_training_with_each(negatives: str, tmp_path: Path) -> None:
    """They differ from each other, and all learn the colours."""
    embeddings = []
    for correction in ("none", "unbiased", "bound"):
        out = tmp_path / correction
        config = corrected(correction, **{"negatives": negatives, "objective.temperature": 0.2, "epochs": 4})
        xmc.train(colours(), config, out)
        assert TrainConfig.load(out / "config.yaml").objective.loss == config.objective.loss
        retriever = xmc.Retriever.load(out)
        embeddings.append(np.asarray(retriever.embeddings))
        assert xmc.evaluate(retriever, colours()).metrics["P@1"] > 0.8
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not np.allclose(embeddings[first], embeddings[second], atol=1e-4)


class StopsAfter(Callback):
    """Fails after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.step:
            raise ValueError("stopped")


def test_a_resumed_run_is_the_whole_one(tmp_path: Path) -> None:
    config = corrected("bound", **{"epochs": 2, "checkpoint": {"steps": 4, "minutes": None}})
    with pytest.raises(TrainingError, match="stopped"):
        xmc.train(colours(), config, tmp_path / "run", callbacks=[StopsAfter(7)])
    for name in ("run", "whole"):
        xmc.train(colours(), config, tmp_path / name, resume=True)
    runs = [np.asarray(xmc.Retriever.load(tmp_path / name).embeddings) for name in ("run", "whole")]
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"propensities": "some"}, r"objective\.loss\.propensities"),
        ({"propensity": [1]}, r"objective\.loss\.propensity must be two numbers A and B > 0"),
        ({"propensity": [0.5, 0]}, r"objective\.loss\.propensity must be two numbers A and B > 0"),
    ],
)
def test_refuses_what_no_propensities_come_of(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**{"objective.loss": {"kind": "binary_cross_entropy", **section}, "negatives": "all"})
    with pytest.raises(ConfigError, match="propensit"):
        tiny_config(**{"objective.loss": {"kind": "softmax", **section}})
