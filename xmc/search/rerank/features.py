"""What a re-ranker looks at: features of a query and a label, each a small class by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from xmc.arrays import Ids
from xmc.encoders.dual import DualEncoder
from xmc.search.labels import LabelVersion
from xmc.search.other_encoder import OtherEncoder
from xmc.search.stages import SearchState

__all__ = ["Feature", "FeatureContext", "FeatureValues", "columns_of", "values_of"]

FeatureValues = npt.NDArray[np.float32]
"""Values of features, float32 [n, m, F], NaN where there is none."""


@dataclass(frozen=True)
class FeatureContext:
    """What features are made from when a re-ranker is fitted.

    labels: of the run. counts: int32 [ids], the number of training queries of each label id that was ever given.
    encoder: another encoder than the run's; None for none. cross_encoder: a directory; None for none.
    """

    labels: LabelVersion
    counts: npt.NDArray[np.int32]
    encoder: OtherEncoder | None = None
    cross_encoder: Path | None = None


class Feature(ABC):
    """One family of features. name: that of its class in xmc.search.rerank.registry.FEATURES, by which a re-ranker names it."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    """Names of the F features, in the order of `values`."""

    @classmethod
    @abstractmethod
    def from_context(cls, context: FeatureContext) -> Feature:
        """The feature as it is before a re-ranker is fitted. InputError where the context lacks what it needs."""

    @classmethod
    def load(cls, directory: Path, beside: DualEncoder) -> Feature:
        """The feature from what `save` wrote into the directory, which is verified, and missing where it wrote nothing.

        beside: the run's model; encoders are placed where it is.
        """
        return cls()

    def save(self, directory: Path) -> None:  # noqa: B027 (most features have nothing to write)
        """Write what the feature needs into an existing empty directory: safetensors, Arrow, JSON."""

    @property
    def digest(self) -> str:
        """What names the feature's content: it changes where values for the same candidates would."""
        return ""

    @abstractmethod
    def values(self, state: SearchState, ids: Ids) -> FeatureValues:
        """The features of each query with the labels `ids` int64 [n, m], the first candidates of the state, -1 for none.

        float32 [n, m, F], anything for -1. A row depends on its own query and labels alone. InputError for queries that the
        feature cannot look at, with what to do.
        """


def columns_of(features: tuple[Feature, ...]) -> tuple[str, ...]:
    """Names of all columns, the family before the feature, as in "scores.rank"."""
    return tuple(f"{feature.name}.{column}" for feature in features for column in feature.columns)


def values_of(features: tuple[Feature, ...], state: SearchState, ids: Ids) -> FeatureValues:
    """The features of all families, side by side: float32 [n, m, F]."""
    values = [feature.values(state, ids) for feature in features]
    return np.concatenate(values, axis=2) if values else np.zeros((*ids.shape, 0), np.float32)
