"""How far sources of votes may be believed, and which given pairs are wrong: against planted truth."""

from __future__ import annotations

import numpy as np
import pytest

from xmc.training.supervision.channels import estimate_channels
from xmc.training.supervision.evidence import PairVotes
from xmc.training.supervision.missing_pairs import fit_missing, pair_features, share_recorded
from xmc.training.supervision.wrong_pairs import chance_and_rest, share_of_chance, two_normals

ACCURACIES = (0.9, 0.7, 0.5)


def planted_votes(rng: np.random.Generator, truth: np.ndarray) -> PairVotes:
    """Each source votes on half of the pairs."""
    places, sources, values = [], [], []
    for number, accuracy in enumerate(ACCURACIES):
        chosen = np.flatnonzero(rng.random(len(truth)) < 0.5)
        right = rng.random(len(chosen)) < accuracy
        places.append(chosen)
        sources.append(np.full(len(chosen), number))
        values.append(np.where(right == truth[chosen], 1.0, -1.0))
    return PairVotes(
        np.concatenate(places),
        np.concatenate(sources).astype(np.int32),
        np.concatenate(values).astype(np.float32),
        ("first", "second", "third"),
    )


def log_loss(truth: np.ndarray, probability: np.ndarray) -> float:
    probability = np.clip(probability, 1e-6, 1 - 1e-6)
    return float(-np.log(np.where(truth, probability, 1 - probability)).mean())


def test_accuracies_of_sources_are_found_and_beat_the_majority() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(8000) < 0.4
    votes, groups = planted_votes(rng, truth), rng.integers(0, 3, 8000)
    scores = np.where(truth, rng.normal(2, 1, 8000), rng.normal(0, 1, 8000))
    features = np.stack([np.ones(8000), scores], axis=1)
    channels = estimate_channels(votes, groups, 3, np.full(8000, np.nan), features)
    np.testing.assert_allclose(channels.accuracy, ACCURACIES, atol=0.05)
    voted = np.bincount(votes.places, minlength=8000) > 0
    number = np.bincount(votes.places, minlength=8000)
    majority = (np.bincount(votes.places, votes.values > 0, 8000) + 1) / (number + 2)
    ours = log_loss(truth[voted], channels.posterior(votes, groups)[voted])
    assert ours < log_loss(truth[voted], majority[voted]) - 0.05


def test_known_pairs_tell_which_source_is_right() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(4000) < 0.5
    votes = planted_votes(rng, truth)
    known = np.where(rng.random(4000) < 0.3, truth.astype(float), np.nan)
    channels = estimate_channels(votes, np.zeros(4000, int), 1, known)
    np.testing.assert_allclose(channels.accuracy, ACCURACIES, atol=0.05)


def test_half_a_vote_says_half_as_much() -> None:
    votes = PairVotes(np.arange(2), np.zeros(2, np.int32), np.array([1.0, 0.5], np.float32), ("one",))
    channels = estimate_channels(votes, np.zeros(2, int), 1, np.array([1.0, np.nan]))
    evidence = channels.evidence(votes, np.zeros(2, int))
    assert evidence[1] == pytest.approx(evidence[0] / 2)


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.33, 0.5])
def test_the_share_of_wrong_pairs_is_found_by_what_chance_scores(wrong: float) -> None:
    rng = np.random.default_rng(3)
    is_wrong = rng.random(4000) < wrong
    scores = np.where(is_wrong, rng.normal(4, 3.5, 4000), rng.normal(11, 3.5, 4000))
    chance = rng.normal(4, 3.5, 20_000)
    assert share_of_chance(scores, chance) == pytest.approx(wrong, abs=0.04)
    unseen = chance_and_rest(scores, chance, wrong)
    assert unseen.mean() == pytest.approx(1 - wrong, abs=0.03)
    assert not wrong or unseen[~is_wrong].mean() > unseen[is_wrong].mean() + 0.3


@pytest.mark.parametrize("wrong", [0.1, 0.33])
def test_memorised_wrong_pairs_are_told_from_true_ones(wrong: float) -> None:
    rng = np.random.default_rng(4)
    is_wrong = rng.random(5000) < wrong
    scores = np.where(is_wrong, rng.normal(7, 2, 5000), rng.normal(12, 2, 5000))
    true = two_normals(scores, wrong)
    assert (true.mean() - (1 - wrong)) == pytest.approx(0, abs=0.03)
    assert ((true < 0.5) == is_wrong).mean() > 0.85
    assert two_normals(scores, 0.0).tolist() == [1.0] * 5000


def test_missing_pairs_are_as_many_as_the_share_says() -> None:
    """Pairs of a known logistic truth, of which half are given and a tenth of those left out of training."""
    rng = np.random.default_rng(5)
    scores, counts = rng.normal(0, 3, 100_000), np.full(100_000, 7)
    relevant = rng.random(100_000) < 1 / (1 + np.exp(4 - scores))
    given = relevant & (rng.random(100_000) < 0.5)
    unseen = given & (rng.random(100_000) < 0.1)
    others = ~given
    features = pair_features(scores, np.zeros(len(scores)), counts)
    recorded = share_recorded(np.full(int(others.sum()), 0.5), 0.1)
    fit = fit_missing(
        (features[unseen], np.ones(int(unseen.sum()))), (features[others], np.ones(int(others.sum()))), recorded
    )
    probability = 1 / (1 + np.exp(-fit.odds(features[others], recorded)))
    assert probability.sum() == pytest.approx(relevant[others].sum(), rel=0.1)
    for low, high in ((-2, 0), (2, 4), (4, 6)):
        some = (scores[others] > low) & (scores[others] < high)
        assert probability[some].mean() == pytest.approx(relevant[others][some].mean(), abs=0.05)
