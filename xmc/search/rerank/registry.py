"""The families of features and of models that re-rankers are made of, by name."""

from __future__ import annotations

from xmc.registry import Registry
from xmc.search.rerank.cosine import CosineFeature
from xmc.search.rerank.cross_encoder import CrossEncoderFeature
from xmc.search.rerank.features import Feature
from xmc.search.rerank.logistic import LogisticModel
from xmc.search.rerank.models import RerankModel
from xmc.search.rerank.neighbours import NeighbourFeature
from xmc.search.rerank.scores import ScoreFeature
from xmc.search.rerank.trees import TreesModel

__all__ = ["FEATURES", "MODELS"]

_FEATURES = (ScoreFeature, NeighbourFeature, CosineFeature, CrossEncoderFeature)
FEATURES: Registry[type[Feature]] = Registry(
    "feature of re-rankers",
    {feature.name: feature for feature in _FEATURES},
)
"""Classes of features by name."""
MODELS: Registry[type[RerankModel]] = Registry(
    "model of re-rankers", {model.name: model for model in (TreesModel, LogisticModel)}
)
"""Classes of models by name."""
