"""How far sources may be believed that never vote against any pair: against planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from xmc.data.evidence import Votes
from xmc.data.targets import Targets
from xmc.training.supervision.approvals import Approvals
from xmc.training.supervision.evidence import PairEvidence
from xmc.training.supervision.pair_entries import PairEntries

QUERIES, LABELS = 400, 60
STRIPPED = np.arange(LABELS) < 20


def planted(
    rng: np.random.Generator, stripped: bool, sources: dict[str, tuple[float, float]]
) -> tuple[PairEvidence, np.ndarray]:
    """Pairs with votes of sources that find a share of the relevant pairs, and another of the rest; and the true pairs' keys.

    stripped: a third of the labels loses all pairs; else half of all pairs is missing.
    """
    truth = rng.random((QUERIES, LABELS)) < 0.1
    given = truth & ~STRIPPED if stripped else truth & (rng.random(truth.shape) < 0.5)
    queries, labels, names = [], [], []
    for name, (right, wrong) in sources.items():
        found = np.argwhere(rng.random(truth.shape) < np.where(truth, right, wrong))
        queries += found[:, 0].tolist()
        labels += found[:, 1].tolist()
        names += [name] * len(found)
    votes = Votes.from_arrays(np.array(queries), np.array(labels), names, np.ones(len(queries)))
    none = csr_matrix(given.shape, dtype=bool)
    targets = Targets(csr_matrix(given.astype(np.float32)), none, none)
    return PairEvidence.of(PairEntries.of(targets, False), votes=votes), np.flatnonzero(truth)


def found(evidence: PairEvidence, stripped: bool) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Keys of the pairs that are voted for and not given, their probabilities, and precisions of sources."""
    approvals = Approvals(evidence, np.ones(QUERIES, bool))
    counts = np.bincount(evidence.pairs.labels[evidence.given], minlength=LABELS)
    share = 2 / 3 if stripped else 0.5
    told = evidence.given.astype(float), counts / share - counts
    open_ = ~evidence.given[approvals.places]
    keys = evidence.pairs.keys[approvals.places][open_]
    return keys, approvals.probabilities(*told)[open_], approvals.precisions(*told)


@pytest.mark.parametrize("stripped", [True, False])
def test_the_precision_of_votes_is_found_from_given_pairs(stripped: bool) -> None:
    evidence, truth = planted(np.random.default_rng(0), stripped, {"names": (0.5, 0.05)})
    keys, said, precisions = found(evidence, stripped)
    right = np.isin(keys, truth)
    every = np.isin(evidence.pairs.keys[evidence.voted], truth)
    assert precisions["names"] == pytest.approx(every.mean(), abs=0.04)
    assert said.mean() == pytest.approx(right.mean(), abs=0.04)
    if stripped:
        lost = STRIPPED[keys % LABELS]
        assert said[lost].mean() == pytest.approx(right[lost].mean(), abs=0.06)
        assert said[~lost].mean() < 0.05


def test_pairs_that_two_sources_find_are_more_probable() -> None:
    evidence, truth = planted(np.random.default_rng(1), False, {"names": (0.5, 0.05), "others": (0.5, 0.1)})
    keys, said, precisions = found(evidence, False)
    right = np.isin(keys, truth)
    assert precisions["names"] > precisions["others"] + 0.1
    for low, high in ((0.0, 0.15), (0.15, 0.5), (0.5, 1.01)):
        some = (said >= low) & (said < high)
        assert some.sum() > 50
        assert said[some].mean() == pytest.approx(right[some].mean(), abs=0.1)


def test_votes_are_wrong_where_nothing_is_missing() -> None:
    evidence, _ = planted(np.random.default_rng(2), True, {"names": (0.5, 0.05)})
    approvals = Approvals(evidence, np.ones(QUERIES, bool))
    said = approvals.probabilities(evidence.given.astype(float), np.zeros(LABELS))
    assert said[~evidence.given[approvals.places]].max() < 1e-9


def test_a_source_that_also_votes_against_pairs_is_none_of_them() -> None:
    evidence, _ = planted(np.random.default_rng(3), True, {"names": (0.5, 0.05)})
    votes = evidence.votes
    votes.values[0] = -1
    approvals = Approvals(evidence, np.ones(QUERIES, bool))
    assert len(approvals.places) == 0
    assert len(approvals.others.places) == len(votes.places)
    assert approvals.precisions(evidence.given.astype(float), np.ones(LABELS)) == {}
    assert len(approvals.probabilities(evidence.given.astype(float), np.ones(LABELS))) == 0


def test_pairs_of_queries_that_are_not_labelled_are_as_probable_as_all_votes() -> None:
    evidence, truth = planted(np.random.default_rng(4), True, {"names": (0.5, 0.05)})
    labelled = np.arange(QUERIES) < QUERIES // 2
    pairs = evidence.pairs
    kept = evidence.given & labelled[pairs.queries]
    entries = PairEntries.from_keys(pairs.keys[kept], pairs.pull[kept], pairs.push[kept], QUERIES, LABELS)
    votes = evidence.votes
    queries, labels = pairs.queries[votes.places], pairs.labels[votes.places].astype(np.int64)
    again = PairEvidence.of(entries, votes=Votes.from_arrays(queries, labels, ["names"] * len(queries), votes.values))
    approvals = Approvals(again, labelled)
    counts = np.bincount(again.pairs.labels[again.given], minlength=LABELS)
    said = approvals.probabilities(again.given.astype(float), counts / (2 / 3) - counts)
    unlabelled = ~labelled[again.pairs.queries[approvals.places]]
    right = np.isin(again.pairs.keys[approvals.places], truth)
    assert said[unlabelled].mean() == pytest.approx(right[unlabelled].mean(), abs=0.05)
