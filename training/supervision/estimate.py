"""From scores to beliefs: one estimate, and what later ones need of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from xmc.arrays import Mask
from xmc.config import SupervisionConfig
from xmc.training.supervision.approvals import Approvals
from xmc.training.supervision.channels import Channels, estimate_channels
from xmc.training.supervision.counts import group_posteriors
from xmc.training.supervision.decisions import Beliefs
from xmc.training.supervision.evidence import PairEvidence
from xmc.training.supervision.frequency import GROUPS, groups_of_labels, is_common
from xmc.training.supervision.missing_pairs import MissingFit, fit_missing, pair_features, share_recorded
from xmc.training.supervision.recorded import RecordedShare
from xmc.training.supervision.scores import PairScores
from xmc.training.supervision.wrong_pairs import chance_and_rest, share_of_chance, two_normals

__all__ = ["Estimated", "Estimator"]

Values = npt.NDArray[np.float64]
SUREST = 50.0
"""Largest log odds of a pair in a group."""


@dataclass(frozen=True)
class Estimated:
    """What the first estimate found, which later ones keep.

    wrong: float64 [GROUPS], the share of wrong pairs among the given ones of each group of labels. given: float64 [n], the
    probability that each pair with evidence is relevant where it is given. channels: of the sources of votes, None without.
    missing: None where none are looked for.
    """

    wrong: Values
    given: Values
    channels: Channels | None = None
    missing: MissingFit | None = None

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Everything, by name, as checkpoints hold it."""
        arrays = {"wrong": self.wrong, "given": self.given}
        if self.channels is not None:
            arrays |= vars(self.channels)
        if self.missing is not None:
            arrays |= {"coefficients": self.missing.coefficients, "totals": self.missing.totals}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.float64]]) -> Estimated:
        """What `arrays` gave."""
        channels = missing = None
        if "prior" in arrays:
            channels = Channels(arrays["true"], arrays["untrue"], arrays["prior"])
        if "totals" in arrays:
            missing = MissingFit(arrays["coefficients"], arrays["totals"])
        return cls(arrays["wrong"], arrays["given"], channels, missing)


class Estimator:
    """Estimates of one training split: evidence is fixed, scores change.

    evidence: the pairs that something is known of. unseen: bool [n], those of them that training leaves out until the first
    estimate. recorded: what is known of how many pairs are given. sought: whether pairs without evidence may be relevant.
    """

    def __init__(
        self, evidence: PairEvidence, options: SupervisionConfig, unseen: Mask, recorded: RecordedShare
    ) -> None:
        self.evidence, self.options, self.unseen, self.recorded = evidence, options, unseen, recorded
        pairs = evidence.pairs
        told = np.zeros(len(pairs), bool)
        told[pairs.queries[evidence.voted | evidence.counted]] = True
        self.sought = recorded.some_missing or not bool((recorded.labelled | told).all())
        self.counts = np.bincount(pairs.labels[evidence.given], minlength=pairs.count)
        self.groups = groups_of_labels(self.counts)
        self.group_of_pair = self.groups[pairs.labels]
        self.approvals = Approvals(evidence, recorded.labelled)

    def first_beliefs(self) -> tuple[Beliefs, Estimated]:
        """Before anything was trained: given pairs are right, votes are weighed by how sources agree, counts shared out."""
        given = np.where(self.evidence.given, 1.0, 0.0)
        channels = None
        if len(self.evidence.votes.places):
            known = np.where(self.evidence.given, 1.0, np.nan)
            channels = estimate_channels(self.approvals.others, self.group_of_pair, GROUPS, known)
        estimated = Estimated(np.zeros(GROUPS), given, channels)
        none = np.zeros((len(self.evidence.pairs), 0))
        odds = self._with_votes(estimated)
        return Beliefs(
            self._counted(odds, np.zeros(len(odds))), none.astype(np.int32), none.astype(np.float16)
        ), estimated

    def first(self, scores: PairScores, chance: npt.NDArray[np.integer]) -> tuple[Beliefs, Estimated]:
        """The first estimate from scores. chance: int [N, c], the labels of `scores.chance`."""
        of_evidence, by_chance = scores.evidence.astype(np.float64), scores.chance.ravel().astype(np.float64)
        wrong, given = self._wrong(of_evidence, by_chance, self.groups[chance].ravel())
        estimated = Estimated(wrong, given, self._channels(of_evidence, given))
        if self.sought:
            missing = self._missing(scores, chance, estimated)
            odds = missing.odds(self._features(scores), self._share(scores, estimated))
            found = float(expit(odds[scores.labels >= 0]).sum())
            lacking = np.bincount(self.groups, self._lacking(estimated), GROUPS).astype(np.float64)
            # Of each group the same share of what it lacks: frequent labels are found more easily, and rare ones would pay.
            totals: Values = lacking * (found / max(float(lacking.sum()), 1e-9))
            estimated = replace(estimated, missing=replace(missing, totals=totals))
        return self.beliefs(scores, estimated), estimated

    def beliefs(self, scores: PairScores, estimated: Estimated) -> Beliefs:
        """What is believed given scores and what the first estimate found."""
        odds = self._with_votes(estimated)
        evidence = self._counted(odds, scores.evidence.astype(np.float64))
        candidates = np.zeros(scores.labels.shape, np.float16)
        if estimated.missing is not None:
            there = scores.labels >= 0
            of_candidates = estimated.missing.odds(self._features(scores), self._share(scores, estimated))
            groups = self.groups[scores.labels[there]]
            candidates[there] = estimated.missing.balanced(of_candidates[there], groups).astype(np.float16)
        return Beliefs(evidence, scores.labels, candidates)

    def most_new(self, estimated: Estimated) -> Values:
        """How many candidates of each label may pull, float64 [L]: as many as are missing of it, by the share that is given."""
        most: Values = np.ceil(self._lacking(estimated) - 1e-9)
        return most

    def precisions(self, estimated: Estimated) -> dict[str, float]:
        """The share of right votes of each source that votes against no pair, by its name."""
        every, right = self._every(estimated)
        return self.approvals.precisions(estimated.given, every - right)

    def _lacking(self, estimated: Estimated) -> Values:
        """How many relevant pairs of each label are expected to be missing, of all queries, float64 [L]."""
        every, right = self._every(estimated)
        lacking: Values = every / max(self.recorded.labelled.mean(), 1e-9) - right
        return lacking

    def _every(self, estimated: Estimated) -> tuple[Values, Values]:
        """How many relevant pairs of labelled queries each label has, and how many of them are given, both float64 [L]."""
        right: Values = np.bincount(self.evidence.pairs.labels, estimated.given, self.evidence.pairs.count).astype(
            np.float64
        )
        return right / self.recorded.of_labels(self._right_share(estimated)), right

    def _right_share(self, estimated: Estimated) -> float:
        given = self.evidence.given
        return float(estimated.given[given].mean()) if given.any() else 1.0

    def _wrong(self, scores: Values, chance: Values, groups: npt.NDArray[np.integer]) -> tuple[Values, Values]:
        """The share of wrong pairs in each group, and the probability that each given pair is right."""
        given = self.evidence.given
        shares = np.zeros(GROUPS)
        of_group = [given & (self.group_of_pair == group) for group in range(GROUPS)]
        if self.options.wrong == "estimate":
            shares[:] = [
                share_of_chance(scores[pairs & self.unseen], chance[groups == group])
                for group, pairs in enumerate(of_group)
            ]
            sizes = np.array([pairs.sum() if is_common(group) else 0 for group, pairs in enumerate(of_group)])
            rare = [group for group in range(GROUPS) if not is_common(group)]
            shares[rare] = float(shares @ sizes) / max(int(sizes.sum()), 1)
        else:
            shares[:] = self.options.wrong
        right = np.where(given, 1.0, 0.0)
        for group, pairs in enumerate(of_group):
            if shares[group] > 0:
                seen, unseen = pairs & ~self.unseen, pairs & self.unseen
                right[seen] = two_normals(scores[seen], shares[group])
                right[unseen] = chance_and_rest(scores[unseen], chance[groups == group], shares[group])
        return shares, right

    def _channels(self, scores: Values, given: Values) -> Channels | None:
        """Those of sources, by the pairs that they vote on and that training did not see."""
        if not len(self.evidence.votes.places):
            return None
        votes = self.approvals.others
        kept = self.unseen[votes.places]
        unseen = replace(votes, places=votes.places[kept], sources=votes.sources[kept], values=votes.values[kept])
        known = np.where(self.evidence.given, given, np.nan)
        features = np.stack([np.ones(len(scores)), scores], axis=1)
        return estimate_channels(unseen, self.group_of_pair, GROUPS, known, features)

    def _missing(self, scores: PairScores, chance: npt.NDArray[np.integer], estimated: Estimated) -> MissingFit:
        """The fit of what pairs that training did not see score, of queries that are labelled."""
        evidence, pairs, labelled = self.evidence, self.evidence.pairs, self.recorded.labelled[:, None]
        unseen = evidence.given & self.unseen
        there = (scores.labels >= 0) & labelled
        rows = np.arange(len(chance))[:, None]
        keys = (rows * pairs.count + chance).ravel()
        best = np.sort((rows * pairs.count + scores.labels)[there])
        free = ~np.isin(keys, pairs.keys) & ~np.isin(keys, best) & np.repeat(labelled, chance.shape[1])
        drawn = (self.counts + 1) / (self.counts + 1).sum()
        stands_for = 1 / (chance.shape[1] * drawn[chance.ravel()[free]])
        level, drawn_for = scores.level, np.repeat(np.arange(len(chance)), chance.shape[1])[free]
        labels = np.concatenate([scores.labels[there].astype(np.int64), chance.ravel()[free]])
        of_chance = pair_features(scores.chance.ravel()[free], level[drawn_for], self.counts[chance.ravel()[free]])
        of_others = np.concatenate([self._features(scores)[there], of_chance])
        of_unseen = pair_features(
            scores.evidence[unseen], level[pairs.queries[unseen]], self.counts[pairs.labels[unseen]]
        )
        weights = np.concatenate([np.ones(int(there.sum())), stands_for])
        return fit_missing(
            (of_unseen, estimated.given[unseen]),
            (of_others, weights),
            share_recorded(self.recorded.of_labels(self._right_share(estimated))[labels], self.options.held_out),
        )

    def _features(self, scores: PairScores) -> Values:
        """Those of the candidates, [N, m, 4]."""
        best = np.where(scores.labels >= 0, scores.best, 0)
        return pair_features(best, scores.level[:, None], self.counts[np.maximum(scores.labels, 0)])

    def _share(self, scores: PairScores, estimated: Estimated) -> Values:
        """The share of given ones among the relevant pairs of each candidate's label that training did not see, [N, m]."""
        recorded = self.recorded.of_labels(self._right_share(estimated))[np.maximum(scores.labels, 0)]
        return np.where(self.recorded.labelled[:, None], share_recorded(recorded, self.options.held_out), 0.0)

    def _with_votes(self, estimated: Estimated) -> Values:
        """Log odds of each pair with evidence, by being given and by votes; those of others are 0."""
        evidence, given = self.evidence, self.evidence.given
        odds = np.zeros(len(evidence))
        with np.errstate(divide="ignore"):
            odds[given] = np.clip(logit(estimated.given[given]), -SUREST, SUREST)
        if estimated.channels is not None:
            prior = logit(estimated.channels.prior)[self.group_of_pair]
            every, right = self._every(estimated)
            with np.errstate(divide="ignore"):
                approved = logit(self.approvals.probabilities(estimated.given, every - right))
            prior[self.approvals.places] = np.clip(approved, -SUREST, SUREST)
            odds += estimated.channels.evidence(self.approvals.others, self.group_of_pair)
            odds += np.where(evidence.voted & ~given, prior, 0.0)
        return odds

    def _counted(self, odds: Values, scores: Values) -> npt.NDArray[np.float16]:
        """The probability of each pair with evidence, float16 [n], once the counts of groups are heard.

        The members of a group differ by their scores, too. A pair of several groups hears each as if it were alone.
        """
        evidence, groups = self.evidence, self.evidence.groups
        says_nothing = ~(evidence.given | evidence.voted | evidence.counted)
        if len(groups):
            members = np.clip(odds + scores, -SUREST, SUREST)[groups.places]
            told = group_posteriors(members, groups.indptr, groups.least, groups.most)
            with np.errstate(divide="ignore"):
                heard = np.clip(logit(told), -SUREST, SUREST) - members
            counted = evidence.counted
            odds = odds + np.where(counted, scores, 0.0) + np.bincount(groups.places, heard, len(odds))
        return np.where(says_nothing, 0.0, expit(odds)).astype(np.float16)
