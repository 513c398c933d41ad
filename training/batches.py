"""Which queries make up each step: a random order of all of them, cut; or clusters of similar ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xmc.arrays import Rows
from xmc.training.negatives import NegativeSource
from xmc.training.parts import TrainingRun
from xmc.training.randomness import Purpose, numpy_random

__all__ = ["batches_of_epoch"]


def batches_of_epoch(run: TrainingRun, sources: Iterable[NegativeSource], epoch: int) -> list[Rows]:
    """Rows of each batch of an epoch (counted from 0): all queries once, in `run.steps_per_epoch` parts of about equal size.

    Where a source of negatives has groups of queries, the parts are made of whole groups in random order, so that the queries
    of a batch have hard labels for each other.
    """
    groups = next((found for source in sources if (found := source.groups(run, epoch)) is not None), None)
    queries, random = len(run.data.training), numpy_random(run.config.seed, epoch, Purpose.BATCHES)
    if groups is None:
        return np.array_split(random.permutation(queries), run.steps_per_epoch)
    order = random.permutation(int(groups.max()) + 1)
    shuffled = random.permutation(queries)
    by_group = shuffled[np.argsort(order[groups[shuffled]], kind="stable")]
    return np.array_split(by_group, run.steps_per_epoch)
