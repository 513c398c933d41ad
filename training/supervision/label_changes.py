"""What relabelling changes, in numbers: by how frequent labels are, and by source of votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xmc.training.supervision.relabel import Relabelled

__all__ = ["FrequencyGroup", "SourceChannel", "changes_by_frequency", "channels_of_sources"]

GROUPS = 10


@dataclass(frozen=True)
class FrequencyGroup:
    """A tenth of the labels, by how often they are given; of fewer than ten labels, one.

    least, most: given pairs of a label. given: pairs. left_out: those of them that count nowhere now. accepted: pairs that are
    positives now and were not given. doubted: other pairs that count less as negatives. posterior: mean probability of the
    given pairs, None without one.
    """

    least: int
    most: int
    given: int
    left_out: int
    accepted: int
    doubted: int
    posterior: float | None


@dataclass(frozen=True)
class SourceChannel:
    """How far a source may be believed, in the mean over labels of six frequencies.

    votes: their number. accuracy: the probability that a vote is right where as many pairs are relevant as not. yes_relevant,
    yes_other: the probability that a vote on a relevant pair, and on another, is positive. precision: in place of these, the
    share of right votes of a source that votes against no pair.
    """

    name: str
    votes: int
    accuracy: float | None
    yes_relevant: float | None
    yes_other: float | None
    precision: float | None = None


def changes_by_frequency(done: Relabelled) -> list[FrequencyGroup]:
    """The tenths of the labels, the rarest first; each label by itself where there are fewer than ten."""
    estimator, entries, evidence = done.estimator, done.entries, done.estimator.evidence
    counts, pairs = estimator.counts, evidence.pairs
    order = np.argsort(counts, kind="stable")
    tenth = np.empty(len(order), np.int64)
    groups = min(GROUPS, len(order))
    tenth[order] = np.arange(len(order)) * groups // max(len(order), 1)
    keys = pairs.keys[evidence.given]
    kept = np.isin(keys, entries.keys[entries.pull > 0])
    told = np.isin(entries.keys, pairs.keys[evidence.given | evidence.excluded])
    accepted, doubted = ~told & (entries.pull > 0), ~told & (entries.pull == 0) & (entries.push < 1)

    def number(labels: np.ndarray[tuple[int], np.dtype[np.integer]], group: int) -> int:
        return int((tenth[labels] == group).sum())

    of_given, posterior = pairs.labels[evidence.given], done.beliefs.evidence[evidence.given].astype(np.float64)
    rows = []
    for group in range(groups):
        inside, own = tenth == group, tenth[of_given] == group
        rows.append(
            FrequencyGroup(
                int(counts[inside].min()),
                int(counts[inside].max()),
                int(own.sum()),
                int((own & ~kept).sum()),
                number(entries.labels[accepted], group),
                number(entries.labels[doubted], group),
                float(posterior[own].mean()) if own.any() else None,
            )
        )
    return rows


def channels_of_sources(done: Relabelled) -> list[SourceChannel]:
    """Of each source of votes; empty without votes."""
    channels, votes = done.estimated.channels, done.estimator.evidence.votes
    if channels is None:
        return []
    numbers = np.bincount(votes.sources, minlength=len(votes.names)).tolist()
    precisions = done.estimator.precisions(done.estimated)
    rows = []
    for place, (name, number) in enumerate(zip(votes.names, numbers, strict=True)):
        if name in precisions:
            rows.append(SourceChannel(name, number, None, None, None, precisions[name]))
        else:
            yes = float(channels.true[place].mean()), float(channels.untrue[place].mean())
            rows.append(SourceChannel(name, number, float(channels.accuracy[place]), *yes))
    return rows
