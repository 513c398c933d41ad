"""Thresholds by conformal risk control against their definition, and what they promise, leaving each query out in turn."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmc.calibration.candidates import Candidates, JudgedCandidates
from xmc.calibration.decisions import Policy, histogram
from xmc.calibration.risk import LEVELS, false_positive_thresholds, miss_thresholds, set_sizes, share
from xmc.calibration.sets import Wanted
from xmc.errors import InputError

BOUNDS = (0.0, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0)


def world(seed: int, n: int, k: int, coarse: bool = False) -> tuple[np.ndarray, JudgedCandidates]:
    """Probabilities of candidates, the truth drawn by them, some true labels missed, some queries without any, ragged ends."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random((n, k)) ** 2
    if coarse:
        probabilities = np.round(probabilities, 1)
    hits = rng.random((n, k)) < probabilities
    scores = np.zeros((n, k), np.float32)
    for query in range(n):
        end = rng.integers(k // 2, k + 1)
        scores[query, end:], probabilities[query, end:], hits[query, end:] = -np.inf, 0, False
    hits[:: max(n // 5, 2)] = False
    positives = hits.sum(axis=1) + rng.integers(0, 2, n) * (np.arange(n) % 7 != 0)
    return probabilities, JudgedCandidates(
        Candidates(scores, np.zeros((n, k), np.int8)), hits, positives, rng.random(n)
    )


def miss_loss(probabilities: np.ndarray, judged: JudgedCandidates, query: int, threshold: float) -> float:
    found = (judged.hits[query] & (probabilities[query] >= threshold)).sum()
    return 1 - found / judged.positives[query]


def false_loss(probabilities: np.ndarray, judged: JudgedCandidates, query: int, threshold: float) -> float:
    """The largest false share of the set and all smaller ones."""
    worst, there = 0.0, np.isfinite(judged.candidates.scores[query])
    for higher in {threshold, *probabilities[query][there & (probabilities[query] >= threshold)].tolist()}:
        inside = there & (probabilities[query] >= higher) & (probabilities[query] > 0)
        if inside.any():
            worst = max(worst, float((inside & ~judged.hits[query]).sum() / inside.sum()))
    return worst


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (40, 11)])
def test_thresholds_are_those_of_the_definition(n: int, k: int, coarse: bool) -> None:
    probabilities, judged = world(n, n, k, coarse)
    misses, falses = miss_thresholds(probabilities, judged), false_positive_thresholds(probabilities, judged)
    asked = np.flatnonzero(judged.positives)
    tried = sorted({*probabilities[np.isfinite(judged.candidates.scores)].tolist(), 0.0})
    assert (misses.queries, falses.queries) == (len(asked), n)
    for bound in BOUNDS:
        kept = [
            one
            for one in tried
            if sum(miss_loss(probabilities, judged, q, one) for q in asked) + 1 <= bound * (len(asked) + 1) + 1e-9
        ]
        threshold = misses.at(Fraction(str(bound)))
        if bound == 1:
            assert threshold == np.inf
        elif kept:
            assert max(kept) == pytest.approx(threshold)
        else:
            assert np.isnan(threshold)
        allowed = bound * (n + 1) + 1e-9
        threshold = falses.at(Fraction(str(bound)))
        if allowed < 1:
            assert np.isnan(threshold)
        else:
            assert sum(false_loss(probabilities, judged, q, threshold) for q in range(n)) + 1 <= allowed
            below = [one for one in tried if 0 < one < threshold]
            if below:
                assert sum(false_loss(probabilities, judged, q, max(below)) for q in range(n)) + 1 > allowed


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(BOUNDS[1:-1]))
def test_the_mean_loss_keeps_to_the_bound_leaving_each_query_out_in_turn(seed: int, coarse: bool, bound: float) -> None:
    """What exchangeability promises in expectation is true of every finite population, each query being the new one in turn."""
    probabilities, judged = world(seed, 30, 5, coarse)
    asked = np.flatnonzero(judged.positives)
    losses = []
    for query in asked:
        rest = np.delete(np.arange(30), query)
        threshold = miss_thresholds(probabilities[rest], judged.take(rest)).at(Fraction(str(bound)))
        losses.append(0.0 if np.isnan(threshold) else miss_loss(probabilities, judged, query, threshold))
    assert np.mean(losses) <= bound + 1e-9
    losses = []
    for query in range(30):
        rest = np.delete(np.arange(30), query)
        threshold = false_positive_thresholds(probabilities[rest], judged.take(rest)).at(Fraction(str(bound)))
        losses.append(0.0 if np.isnan(threshold) else false_loss(probabilities, judged, query, threshold))
    assert np.mean(losses) <= bound + 1e-9


def test_labels_that_are_no_candidates_count_as_misses() -> None:
    probabilities, judged = world(0, 400, 6)
    lower = JudgedCandidates(judged.candidates, judged.hits, judged.positives + 2, judged.draws)
    assert miss_thresholds(probabilities, lower).lowest() > miss_thresholds(probabilities, judged).lowest() + 0.2
    with_all = set_sizes(probabilities, lower, 0.0)
    assert with_all.whole == 1
    assert with_all.recall == pytest.approx(np.mean(lower.hits.sum(axis=1) / lower.positives))


def test_a_better_next_threshold_exists_for_every_level() -> None:
    probabilities, judged = world(5, 300, 9)
    values = miss_thresholds(probabilities, judged).values
    there = values[~np.isnan(values)]
    assert len(values) == LEVELS + 1
    assert (np.diff(there) >= 0).all()  # the more may be missed, the smaller the sets
    values = false_positive_thresholds(probabilities, judged).values
    assert (np.diff(values[~np.isnan(values)]) <= 0).all()  # the more may be false, the larger


def test_sizes_count_empty_and_whole_sets() -> None:
    scores = np.array([[1, 1, -np.inf], [1, -np.inf, -np.inf], [1, 1, 1]], np.float32)
    probabilities = np.array([[0.9, 0.8, 0], [0.2, 0, 0], [0.9, 0.1, 0.1]])
    hits = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1]], bool)
    judged = JudgedCandidates(Candidates(scores, np.zeros((3, 3), np.int8)), hits, np.array([2, 0, 2]), np.zeros(3))
    found = set_sizes(probabilities, judged, 0.5)
    assert (found.recall, found.mean, found.median, found.largest) == (0.5, 1.0, 1.0, 2)
    assert (found.empty, found.whole) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.false_positive_share == pytest.approx(0.5 / 3)


def test_a_policy_expects_what_a_count_gives() -> None:
    probabilities, judged = world(2, 200, 8)
    expected = histogram(probabilities, judged).expect(Policy(0.7, 0.25))
    there = np.isfinite(judged.candidates.scores)
    taken, asked = there & (probabilities >= 0.7), there & (probabilities >= 0.25) & (probabilities < 0.7)
    assert expected.automatic == pytest.approx(taken.sum() / 200)
    assert expected.automatic_error == pytest.approx((taken & ~judged.hits).sum() / taken.sum())
    assert expected.person_true == pytest.approx((asked & judged.hits).sum() / asked.sum())
    assert expected.lost == pytest.approx(1 - ((taken | asked) & judged.hits).sum() / judged.positives.sum())
    assert expected.found_automatic + expected.found_person + expected.lost == pytest.approx(1)
    nothing = histogram(probabilities, judged).expect(Policy(1.0, 1.0))
    assert (nothing.automatic, nothing.automatic_error, nothing.lost) == (0, 0, 1)
    for automatic, person in ((0.5, 0.6), (1.2, 0.1), (0.9, -0.1), (float("nan"), 0.1), (0.90005, 0.1), ("x", 0.1)):
        with pytest.raises(InputError, match="threshold"):
            Policy(automatic, person)


def test_shares_are_in_the_open_interval_and_exact() -> None:
    assert share(0.29, "recall") == Fraction(29, 100)
    for value in (0.0, 1.0, -0.1, 1.1, float("nan"), float("inf"), "0.8", None):
        with pytest.raises(InputError, match="recall must be a share between 0 and 1, without them"):
            share(value, "recall")  # type: ignore[arg-type]
    for options in ({}, {"recall": 0.9, "significance": 0.1}):
        with pytest.raises(InputError, match="Name one of recall, false_positive_share and significance"):
            Wanted(**options)
