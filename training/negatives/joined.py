"""The labels of a step, from one or several sources of negatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from xmc.arrays import Rows
from xmc.errors import ConfigError
from xmc.training.batch import Batch
from xmc.training.negatives.base import NegativeSource, StepLabels

__all__ = ["JoinedNegatives"]


class JoinedNegatives:
    """What several sources of negatives give together; one that scores every label stands alone."""

    def __init__(self, sources: Sequence[NegativeSource], labels: int) -> None:
        """labels: of the data set. Raises ConfigError for a source that scores all labels beside others."""
        self.sources = tuple(sources)
        self.every = torch.arange(labels)
        alone = [source.kind for source in sources if source.scores_all]
        if alone and len(sources) > 1:
            raise ConfigError(f"negatives {alone[0]} scores every label; it cannot be joined with others.")
        self.scores_all = bool(alone)

    def labels_of(self, batch: Batch, queries: Tensor) -> StepLabels:
        """The labels that the step scores and encodes. queries: embeddings [B, D] of the batch, without gradient."""
        if self.scores_all:
            chosen = self.sources[0].encoded(batch, queries)
            fresh, weights = (self.every, None) if chosen is None else chosen
            return StepLabels(self.every, fresh, batch.targets, batch.taught, None, weights)
        given = [source.rows(batch) for source in self.sources]
        rows = np.unique(np.concatenate([*_required(batch), *given]))
        candidates = torch.from_numpy(rows)
        return StepLabels(
            candidates,
            candidates,
            batch.every.among(candidates),
            None if batch.taught is None else batch.taught.among(candidates),
            self._log_inclusion(rows, given),
        )

    def completed(self, texts: Tensor, labels: StepLabels, encoded: slice, step: int) -> Tensor:
        """Text embeddings of this process's scored labels, from those of its encoded ones."""
        for source in self.sources:
            texts = source.completed(texts, labels, encoded, step)
        return texts

    def _log_inclusion(self, rows: Rows, given: Sequence[Rows]) -> Tensor | None:
        """That of the source that has one; labels that the others gave are in any sample."""
        for number, source in enumerate(self.sources):
            values = source.log_inclusion(rows)
            if values is not None:
                for other in (*given[:number], *given[number + 1 :]):
                    values[np.isin(rows, other)] = 0.0
                return torch.from_numpy(values)
        return None


def _required(batch: Batch) -> list[Rows]:
    """Label rows that are scored whatever the negatives are."""
    required = [batch.targets.positive_labels.numpy(), batch.targets.rejected_labels.numpy()]
    if batch.taught is not None:
        required.append(batch.taught.positive_labels.numpy())
    return required
