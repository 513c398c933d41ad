"""What an estimate draws at random: pairs that training leaves out at first, and labels that stand for chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xmc.arrays import Mask
from xmc.config import SupervisionConfig
from xmc.training.randomness import Purpose, numpy_random
from xmc.training.supervision.evidence import PairEvidence
from xmc.training.supervision.recorded import RecordedShare

__all__ = ["held_out_pairs", "labels_of_chance", "pairs_to_judge"]

LABELS = 8
"""Labels that are drawn for each query."""


def pairs_to_judge(evidence: PairEvidence, options: SupervisionConfig, recorded: RecordedShare) -> Mask:
    """The pairs with evidence whose scores tell something while training does not see them, bool [n].

    Those that are voted on; given ones too where some are wrong, some are missing, or some queries are not labelled.
    """
    judged = evidence.voted
    if recorded.some_missing or options.wrong != 0.0 or not recorded.labelled.all():
        judged = judged | evidence.given
    return judged & ~evidence.counted


def held_out_pairs(pairs: Mask, share: float, seed: int) -> Mask:
    """A share of some pairs, bool [n]; the same ones for the same seed."""
    return pairs & (numpy_random(seed, 0, Purpose.HELD_OUT).random(len(pairs)) < share)


def labels_of_chance(counts: npt.NDArray[np.integer], queries: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Labels drawn for each query by how often they are given, int64 [queries, LABELS]. counts: of each label."""
    weights = counts + 1
    drawn: npt.NDArray[np.int64] = numpy_random(seed, epoch, Purpose.CHANCE).choice(
        len(counts), (queries, LABELS), p=weights / weights.sum()
    )
    return drawn
