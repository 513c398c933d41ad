"""A stage of search from outside of the package: labels that score far below the best one are no answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xmc.search.stages import STAGES, SearchState, Stage


class ToyGap(Stage):
    """Candidates whose score is more than `gap` below that of the best candidate are left out."""

    name = "toy-gap"

    def __init__(self, gap: float) -> None:
        self.gap = gap

    @property
    def options(self) -> dict[str, Any]:
        return {"gap": self.gap}

    def __call__(self, state: SearchState) -> SearchState:
        ids, scores = state.ranked()
        far = scores < scores[:, :1] - self.gap
        return replace(state, ids=np.where(far, -1, ids), scores=np.where(far, np.float32(-np.inf), scores))


STAGES.register("toy-gap", ToyGap)
