"""The models of re-rankers give what scikit-learn's do, from arrays alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from xmc.search.rerank.logistic import LogisticModel
from xmc.search.rerank.models import RerankModel
from xmc.search.rerank.registry import MODELS
from xmc.search.rerank.trees import TreesModel


def rows(count: int, missing: float, seed: int = 0) -> tuple[Any, Any, Any]:
    """Features float32 [count, 5], some of them equal to one another, what is true of them, and weights."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, 5)).astype(np.float32)
    values[:, 3] = np.round(values[:, 3])
    true = values[:, 0] + values[:, 1] * values[:, 3] + rng.normal(size=count) > 0
    values[rng.random(values.shape) < missing] = np.nan
    return values, true, rng.random(count) + 0.5


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_trees_are_those_of_scikit_learn(missing: float) -> None:
    values, true, weights = rows(2000, missing)
    classifier = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=9, early_stopping=False, random_state=0)
    classifier.fit(values, true, sample_weight=weights)
    model = TreesModel.from_scikit_learn(classifier)
    thresholds = np.unique(model.arrays["threshold"])
    unseen = np.concatenate([rows(3000, missing, 1)[0], np.resize(thresholds, (100, 5))])
    unseen[:4] = np.array([np.inf, -np.inf, np.nan, 0.0])[:, None]
    np.testing.assert_allclose(model.log_odds(unseen), classifier.decision_function(unseen), rtol=0, atol=1e-6)


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    values, true, weights = rows(500, 0.0)
    model = LogisticModel.fit(values, true, weights, C=0.5)
    wide = values.astype(np.float64)
    standard = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    expected = LogisticRegression(C=0.5, max_iter=1000).fit(standard, true, sample_weight=weights)
    np.testing.assert_allclose(model.log_odds(values), expected.decision_function(standard), atol=1e-9)
    missing = values[:3].copy()
    missing[:, 2] = np.nan
    means = values[:3].copy()
    means[:, 2] = np.float32(model.mean[2])
    np.testing.assert_allclose(model.log_odds(missing), model.log_odds(means), atol=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_keeps_the_contract(name: str, tmp_path: Path) -> None:
    """Fitted alike from alike rows, stored to the bit, each row by itself; it parts what is true from what is not."""
    values, true, weights = rows(600, 0.1)
    kind = MODELS[name]
    model = kind.fit(values, true, weights, **kind.grid[0])
    same = kind.fit(values, true, weights, **kind.grid[0])
    assert (model.width, model.name, model.digest) == (5, name, same.digest)
    assert kind.fit(values, ~true, weights, **kind.grid[0]).digest != model.digest
    model.save(tmp_path)
    stored: RerankModel = kind.load(tmp_path)
    scores = model.log_odds(values)
    assert (stored.digest, stored.log_odds(values).tolist()) == (model.digest, scores.tolist())
    assert [model.log_odds(values[[row]])[0] for row in range(20)] == scores[:20].tolist()
    assert scores.dtype == np.float64
    assert ((scores > 0) == true).mean() > 0.7
    assert not len(model.log_odds(values[:0]))
