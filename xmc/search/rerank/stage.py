"""The stage `rerank`: the first candidates of each query scored anew by a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings, Ids
from xmc.encoders.dual import DualEncoder
from xmc.errors import ConfigError, InputError, StoreError, boundary
from xmc.search.fitted import FittedOn
from xmc.search.reasons import Reason, Reasons
from xmc.search.rerank.features import Feature, FeatureValues, columns_of, values_of
from xmc.search.rerank.models import RerankModel
from xmc.search.rerank.registry import FEATURES, MODELS
from xmc.search.stages import STAGES, SearchState, Stage
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = ["SHORTLIST", "Rerank"]

SHORTLIST = 50
"""Number of candidates that are scored anew, unless another is named."""
MODEL = "model"


class Rerank(Stage):
    """Scores the first `shortlist` candidates of each query anew, whatever k is: their score becomes the model's log-odds.

    Labels behind these follow in their order. Their scores go on from the lowest of the new ones, as far below it as they were
    below the last of the shortlist before: what is returned for k labels is the beginning of what is returned for more. A
    search that asks for diversity goes without: it chooses by likeness of labels.
    """

    name = "rerank"
    for_queries_alone = True

    def __init__(
        self,
        features: Sequence[Feature],
        model: RerankModel,
        shortlist: int = SHORTLIST,
        fitted_on: FittedOn | None = None,
    ) -> None:
        """Raises ConfigError for a model of another number of features, or a shortlist below 1."""
        self.features, self.model, self.shortlist, self.fitted_on = tuple(features), model, shortlist, fitted_on
        columns = columns_of(self.features)
        if model.width != len(columns):
            raise ConfigError(
                f"The re-ranker's model is of {model.width} features, but the families "
                f"{', '.join(feature.name for feature in self.features)} have {len(columns)}: {', '.join(columns)}."
            )
        if shortlist < 1:
            raise ConfigError(f"A re-ranker's shortlist must be at least 1, but is {shortlist}.")

    @classmethod
    def for_model(cls, model: DualEncoder, directory: Path, **options: Any) -> Rerank:
        """See Stage. StoreError for files that are not a re-ranker's."""
        fitted_on = options["fitted_on"]
        with boundary(StoreError, f"The re-ranker in {directory} cannot be read"):
            try:
                features = [FEATURES[str(name)].load(directory / str(name), model) for name in options["features"]]
                fitted = MODELS[str(options["kind"])].load(directory / MODEL)
            except StoreError as error:
                raise ValueError(str(error)) from error
            on = None if fitted_on is None else FittedOn.from_dict(fitted_on)
            return cls(features, fitted, int(options["shortlist"]), on)

    @property
    def options(self) -> dict[str, Any]:
        """See Stage."""
        return {
            "features": [feature.name for feature in self.features],
            "kind": self.model.name,
            "shortlist": self.shortlist,
            "fitted_on": None if self.fitted_on is None else self.fitted_on.to_dict(),
        }

    @property
    def fingerprint(self) -> str:
        """See Stage."""
        digests = [self.model.digest, *(feature.digest for feature in self.features)]
        return fingerprint_of_json([self.name, self.options, digests], sort_keys=True)

    def save(self, directory: Path) -> None:
        """See Stage."""
        (directory / MODEL).mkdir()
        self.model.save(directory / MODEL)
        for feature in self.features:
            (directory / feature.name).mkdir()
            feature.save(directory / feature.name)
            if not any((directory / feature.name).iterdir()):
                (directory / feature.name).rmdir()

    def wanted(self, k: int) -> int:
        """See Stage."""
        return max(k, self.shortlist)

    def __call__(self, state: SearchState) -> SearchState:
        """Score anew, and order. InputError where rerank=True meets diversity, and as `Feature.values`."""
        if state.request.diversity:
            if state.request.rerank:
                raise InputError("diversity and rerank=True both order the labels; leave one of them out.")
            return state
        ids, scores = state.ranked()
        first = ids[:, : self.shortlist]
        values = values_of(self.features, state, first)
        rescored = self.rescored(values, first, scores)
        order = np.argsort(-rescored, axis=1, kind="stable")
        ordered = replace(state, scores=rescored).ordered(order)
        if state.allowed_ids is state.ids:
            ordered = replace(ordered, allowed_ids=ordered.ids)
        return ordered.explained(_scores_before(ids, scores, order)) if state.request.explain else ordered

    def rescored(self, values: FeatureValues, first: Ids, scores: Embeddings) -> Embeddings:
        """The new scores of all candidates, float32 [n, m], in their present order.

        values: features of the first candidates, whose ids are `first`. scores: as they are, of all, best first.
        """
        count = first.shape[1]
        new = scores.astype(np.float32, copy=True)
        there = first >= 0
        new[:, :count][there] = self.model.log_odds(values[there]).astype(np.float32)
        new[:, :count][~there] = -np.inf
        if scores.shape[1] > count > 0:
            lowest = np.where(there, new[:, :count], np.inf).min(axis=1, keepdims=True)
            with np.errstate(invalid="ignore"):  # -inf - -inf, where no label is left
                behind = lowest + (scores[:, count:] - scores[:, count - 1 : count])
            new[:, count:] = np.where(np.isfinite(scores[:, count:]), behind, -np.inf)
        return new


def _scores_before(ids: Ids, scores: Embeddings, order: npt.NDArray[np.integer]) -> Reasons:
    """For each candidate the score that it had before, in the new order."""
    said = np.full(ids.shape, None, object)
    for place in zip(*np.nonzero(ids >= 0), strict=True):
        said[place] = (Reason("re-ranked", float(scores[place])),)
    reasons: Reasons = np.take_along_axis(said, order, 1)
    return reasons


STAGES.register(Rerank.name, Rerank)
