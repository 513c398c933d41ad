"""Training on bags: texts of several passages whose labels are known of the whole text alone.

Each label of a text is given to the passage whose embedding is nearest to the label's, anew before every epoch but the first,
in which all passages have all labels; for the others the pair counts nowhere. A step is then one over passages. This is the
pseudo-labelling by prototypes of Ma et al., "Rethinking multiple instance learning for whole slide image classification: a good
instance classifier is all you need" (2024), with label embeddings as the prototypes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import Self

from xmc.arrays import Embeddings, Rows
from xmc.training.checkpoints import Checkpoint
from xmc.training.embedding import embed_labels, embed_queries
from xmc.training.parts import PartState, Sizes, TrainingPart, TrainingRun

__all__ = ["BagLabels", "nearest_passages"]

PAIRS_AT_ONCE = 65_536
"""Number of pairs whose embeddings are multiplied together."""


def nearest_passages(scores: Embeddings, passages: Rows, labels: Rows, bags: Rows) -> npt.NDArray[np.bool_]:
    """Which pairs of a passage and a label of its text have the highest score of the text's passages, bool [n].

    scores, passages, labels: of n pairs. bags: the text of each passage. The first passage of equal ones is taken.
    """
    of_text = bags[passages]
    order = np.lexsort((passages, -scores, labels, of_text))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(of_text[order]) != 0) | (np.diff(labels[order]) != 0)
    nearest = np.zeros(len(order), bool)
    nearest[order[first]] = True
    return nearest


class BagLabels(TrainingPart):
    """Which of the passages of each training text have its labels."""

    name = "bags"

    def __init__(self, pairs: int) -> None:
        """pairs: number of pairs of a passage and a label of its text."""
        self.kept = torch.ones(pairs, dtype=torch.uint8)

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """Of a run whose queries are passages."""
        return cls(len(run.data.known.positive_pairs[0]))

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """The embeddings of all passages and labels, between epochs."""
        return {"passages and labels between epochs (host)": (sizes.queries + sizes.labels) * sizes.row}

    def before_epoch(self, run: TrainingRun, epoch: int) -> None:
        """Give each label of a text to its nearest passage, once the model has learned something."""
        if epoch:
            queries = embed_queries(run.model, run.data.query_features)
            labels = run.world.to_root(embed_labels(run.model, run.data.label_features, run.world))
            kept = None if labels is None else self._nearest(run, queries, labels.numpy())
            self.kept = run.world.from_root(kept)
        self._apply(run)

    def _nearest(self, run: TrainingRun, queries: Embeddings, vectors: Embeddings) -> Tensor:
        assert run.data.bags is not None
        passages, labels = run.data.known.positive_pairs
        scores = np.empty(len(passages), np.float32)
        for start in range(0, len(scores), PAIRS_AT_ONCE):
            some = slice(start, start + PAIRS_AT_ONCE)
            scores[some] = np.einsum("nd,nd->n", queries[passages[some]], vectors[labels[some]])
        return torch.from_numpy(nearest_passages(scores, passages, labels, run.data.bags).astype(np.uint8))

    def _apply(self, run: TrainingRun) -> None:
        run.data.known.train_on(self.kept.numpy().astype(bool))

    def state(self) -> PartState:
        """Which pairs are trained on."""
        return PartState({"bags.kept": self.kept})

    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        self.kept = checkpoint.tensor("bags.kept")
        self._apply(run)
