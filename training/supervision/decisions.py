"""From how probable pairs are to what training does with them: pull, push, or neither."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xmc.arrays import Mask, Rows
from xmc.config import SupervisionConfig
from xmc.training.supervision.evidence import PairEvidence
from xmc.training.supervision.pair_entries import PairEntries

__all__ = ["Beliefs", "decided"]

NEGATIVE_SHARE = 0.2
"""A counted pair is a negative below this share of the probability from which on it pulls."""


@dataclass(frozen=True)
class Beliefs:
    """How probable it is that pairs are relevant.

    evidence: float16 [n], of the pairs with evidence. labels, candidates: int32 and float16 [N, m], other labels of each query,
    -1 where it has fewer, and their probability.
    """

    evidence: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int32]
    candidates: npt.NDArray[np.float16]


def decided(
    evidence: PairEvidence,
    beliefs: Beliefs,
    options: SupervisionConfig,
    unseen: Mask,
    most: npt.NDArray[np.float64],
) -> PairEntries:
    """The entries that training goes on with.

    A given pair pulls by its probability from `options.accept` on, and counts nowhere below. One without evidence pulls from
    `options.accept_new` on. One that is not given pushes by the probability that it is not relevant from `options.doubt` on;
    below, it is a negative as any other. One that sources vote on pulls from `options.accept` on as a given one, and below does
    both: pairs that are right one time in three are learned as that, and not as true.
    Pairs of counted groups pull from a lower probability on: `options.doubt`, or half of what all pairs of the group would have
    alike. What is rejected stays so.

    unseen: bool [n], pairs that count nowhere whatever is believed. most: float64 [L], how many candidates of each label may
    pull: the most probable ones.
    """
    pairs, probability = evidence.pairs, beliefs.evidence.astype(np.float32)
    given, open_ = evidence.given, ~evidence.rejected & ~evidence.excluded
    accept = np.full(len(evidence), options.accept, np.float32)
    doubt = np.full(len(evidence), options.doubt, np.float32)
    groups, by_votes = evidence.groups, evidence.voted & ~given & ~evidence.counted
    accept[by_votes] = options.doubt
    alike = np.repeat(groups.most / np.maximum(np.diff(groups.indptr), 1), np.diff(groups.indptr)) / 2
    lowest = np.minimum(np.full(len(alike), options.doubt), alike).astype(np.float32)
    accept[groups.places], doubt[groups.places] = lowest, NEGATIVE_SHARE * lowest
    pulls = open_ & (probability >= accept) & (probability > 0) & ~unseen
    pull = np.where(pulls, np.where(given, pairs.pull, np.float32(1)) * probability, np.float32(0))
    uncertain = by_votes & (probability < options.accept)
    nowhere = evidence.excluded | (pulls & ~uncertain) | (open_ & (given | unseen))
    push = np.where(open_ & (probability >= doubt), 1 - probability, pairs.push)
    push = np.where(nowhere, np.float32(0), push)
    keys, more, less = _candidates(beliefs, options, most, pairs.count)
    joined = np.concatenate([pairs.keys, keys])
    order = np.argsort(joined, kind="stable")
    pull, push = np.concatenate([pull, more])[order], np.concatenate([push, less])[order]
    kept = (pull > 0) | (push != 1) | np.concatenate([evidence.rejected, np.zeros(len(keys), bool)])[order]
    return PairEntries.from_keys(joined[order][kept], pull[kept], push[kept], len(pairs), pairs.count)


def _candidates(
    beliefs: Beliefs, options: SupervisionConfig, most: npt.NDArray[np.float64], count: int
) -> tuple[Rows, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The number of each candidate pair that is not a negative as any other, its pull and its push."""
    rows, places = np.nonzero((beliefs.labels >= 0) & (beliefs.candidates >= np.float16(options.doubt)))
    labels = beliefs.labels[rows, places].astype(np.int64)
    probability = beliefs.candidates[rows, places].astype(np.float32)
    pull = np.where(probability >= options.accept_new, probability, np.float32(0))
    if options.cap:
        order = np.lexsort((rows, -pull, labels))
        first = np.searchsorted(labels[order], labels[order])
        pull[order[np.arange(len(order)) - first >= most[labels[order]]]] = 0
    push = np.where(pull > 0, np.float32(0), 1 - probability)
    return rows * count + labels, pull, push
