"""Features of the ranking itself: the score, its distance to others, the rank, how frequent the label is."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from xmc.arrays import Ids
from xmc.encoders.dual import DualEncoder
from xmc.search.rerank.features import Feature, FeatureContext, FeatureValues
from xmc.search.stages import SearchState
from xmc.storage.expected_tensors import Expected, numpy_tensors

__all__ = ["ScoreFeature"]

FILE = "counts.safetensors"
TENTH = 9
"""The column of the tenth candidate."""


class ScoreFeature(Feature):
    """The candidates' scores as the stages before have left them.

    counts: int32 [ids], the number of training queries of each label id; labels with greater ids have none.
    """

    name = "scores"
    columns = ("score", "to_first", "to_tenth", "best", "log_rank", "log_count")

    def __init__(self, counts: npt.NDArray[np.int32]) -> None:
        self.counts = counts

    @classmethod
    def from_context(cls, context: FeatureContext) -> ScoreFeature:
        """See Feature."""
        return cls(context.counts)

    @classmethod
    def load(cls, directory: Path, beside: DualEncoder) -> ScoreFeature:
        """See Feature."""
        return cls(numpy_tensors(directory / FILE, {"counts": Expected((None,), ("I32",))})["counts"])

    def save(self, directory: Path) -> None:
        """See Feature."""
        save_file({"counts": self.counts}, directory / FILE)

    @property
    def digest(self) -> str:
        """Of the counts."""
        return sha256(self.counts.tobytes()).hexdigest()

    def values(self, state: SearchState, ids: Ids) -> FeatureValues:
        """See Feature."""
        count = ids.shape[1]
        scores = state.ranked()[1][:, :count]
        best = scores[:, :1]
        tenth = scores[:, min(TENTH, count - 1), None] if count else best
        tenth = np.where(np.isfinite(tenth), tenth, np.nan)
        known = (ids >= 0) & (ids < len(self.counts))
        frequency = (
            np.where(known, self.counts[np.where(known, ids, 0)], 0) if len(self.counts) else np.zeros(ids.shape)
        )
        with np.errstate(invalid="ignore"):  # -inf - -inf, for no label
            columns = (
                scores,
                scores - best,
                scores - tenth,
                np.broadcast_to(best, ids.shape),
                np.broadcast_to(np.log1p(np.arange(count)), ids.shape),
                np.log1p(frequency),
            )
        return np.stack(columns, axis=2).astype(np.float32)
