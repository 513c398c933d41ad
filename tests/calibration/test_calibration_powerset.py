"""Label-powerset conformal prediction against enumeration of every label set."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain, combinations, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmc.calibration.candidates import Candidates, JudgedCandidates
from xmc.calibration.dependency import LabelSets
from xmc.calibration.powerset import UNIT, Powerset, fit_powerset
from xmc.calibration.sets import Scored
from xmc.calibration.subsets import count_subsets, subsets_by_cost
from xmc.errors import InputError


def every_subset(items: int) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(range(items), size) for size in range(items + 1)))


def reference_score(
    own: set[int],
    candidates: list[int],
    probabilities: np.ndarray,
    norm: float,
    dependency: float,
    seen: list[list[int]],
) -> float:
    """The definition, label by label; the sum itself where no dependency is added, as the root changes no order."""
    total = 0
    for label, p in zip(candidates, probabilities, strict=True):
        total += round(abs((label in own) - float(p)) ** norm * UNIT)
    total += UNIT * len(own - set(candidates))
    if not dependency:
        return total / UNIT
    return (total / UNIT) ** (1 / norm) + dependency * min(len(own ^ set(other)) for other in seen)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 40), max_size=9), st.lists(st.integers(-3, 150), min_size=1, max_size=4))
def test_subsets_are_counted_and_ordered_as_by_enumeration(costs: list[int], budgets: list[int]) -> None:
    sums = sorted(sum(costs[item] for item in one) for one in every_subset(len(costs)))
    assert count_subsets(costs, budgets) == [sum(total <= budget for total in sums) for budget in budgets]
    listed = list(subsets_by_cost(costs))
    assert [cost for cost, _ in listed] == sums
    assert sorted(tuple(sorted(items)) for _, items in listed) == sorted(every_subset(len(costs)))
    assert all(sum(costs[item] for item in items) == cost for cost, items in listed)


def test_counts_are_exact_where_they_are_astronomical() -> None:
    assert count_subsets([1] * 300, [300, 150]) == [2**300, 2**299 + int(count_subsets([1] * 300, [150])[0]) - 2**299]
    assert count_subsets([1] * 300, [299]) == [2**300 - 1]
    assert count_subsets([0] * 200 + [7], [6, 7]) == [2**200, 2**201]
    assert [cost for cost, _ in islice(subsets_by_cost([3] * 10_000), 3)] == [0, 3, 3]


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("dependency", [0.0, 0.15])
@pytest.mark.parametrize("labels", [1, 5, 9])
def test_regions_equal_enumeration_of_all_label_sets(norm: float, dependency: float, labels: int) -> None:
    rng = np.random.default_rng(labels)
    k, n = max(1, labels - 2), 40  # two labels are never candidates
    probabilities = rng.random((n + 6, k)) ** 2
    candidates = [sorted(rng.choice(labels, k, replace=False).tolist()) for _ in range(n + 6)]
    true = [sorted(rng.choice(labels, rng.integers(0, labels + 1), replace=False).tolist()) for _ in range(n + 6)]
    seen = true[:15]
    hits = np.array([[label in own for label in row] for row, own in zip(candidates, true, strict=True)])
    judged = JudgedCandidates(
        Candidates(np.zeros((n + 6, k), np.float32), np.zeros((n + 6, k), np.int8)),
        hits,
        np.array([len(own) for own in true]),
        rng.random(n + 6),
    )
    rows = np.arange(n)
    model = fit_powerset(probabilities[:n], judged.take(rows), true[:n], norm, dependency, LabelSets.from_lists(seen))

    def score(query: int, own: tuple[int, ...] | list[int]) -> float:
        return reference_score(set(own), candidates[query], probabilities[query], norm, dependency, seen)

    calibration = np.array([score(query, true[query]) for query in range(n)])
    np.testing.assert_allclose(model.scores, np.sort(calibration), rtol=1e-12)
    for query in range(n, n + 6):
        for significance in (Fraction(1, 20), Fraction(1, 5), Fraction(1, 2)):
            region = model.region(probabilities[query], np.array(candidates[query]), significance, 10_000)
            p_values = {}
            for places in every_subset(k):
                own = [candidates[query][place] for place in places]
                p_values[places] = ((calibration >= score(query, own) - 1e-12).sum() + 1) / (n + 1)
            inside = {places: p for places, p in p_values.items() if p > significance}
            assert dict(zip(map(tuple, region.sets), region.p_values, strict=True)) == pytest.approx(inside)
            assert region.p_values == sorted(region.p_values, reverse=True)
            assert region.count == region.at_most == region.counts[0] == len(inside)
            ordered = sorted(p_values.values(), reverse=True)
            assert region.credibility == pytest.approx(ordered[0])
            if not dependency:
                outside = [label for label in range(labels) if label not in candidates[query]]
                for more, count in enumerate(region.counts[: len(outside) + 1]):
                    added = [
                        (
                            (calibration >= score(query, [candidates[query][p] for p in places] + outside[:more])).sum()
                            + 1
                        )
                        / (n + 1)
                        for places in every_subset(k)
                    ]
                    assert count == sum(p > significance for p in added)
            everything = [score(query, own) for own in every_subset(labels)] if not dependency else None
            if everything is not None and labels > k:
                second = ((calibration >= sorted(everything)[1]).sum() + 1) / (n + 1)
                assert region.confidence == pytest.approx(1 - second)


def test_fifteen_labels_in_full() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.random(15) ** 3
    model = Powerset(2.0, np.sort(rng.random(99) * 5))
    region = model.region(probabilities, np.arange(15), Fraction(1, 10), 2**15)
    scores = {
        places: reference_score(set(places), list(range(15)), probabilities, 2.0, 0, []) for places in every_subset(15)
    }
    inside = {places for places, one in scores.items() if one <= model.threshold(Fraction(1, 10))}
    assert set(map(tuple, region.sets)) == inside
    assert region.count == len(inside) > 1_000
    assert model.region(probabilities, np.arange(15), Fraction(1, 10), 7).sets == region.sets[:7]
    assert (listed := [scores[tuple(places)] for places in region.sets]) == sorted(listed)


def test_p_values_of_any_set_need_no_candidates() -> None:
    model = Powerset(1.0, np.array([0.25, 1.0, 2.0]))
    scored = Scored(np.array([[7, 3, -1]]), np.array([[0.75, 0.5, 0.0]]))
    sets = ([7], [7, 3], [7, 99], [3, 3], [98, 99, 100])
    found = [scored.p_values(model, [own])[0] for own in sets]
    # costs: 0.25 + 0.5; 0.25 + 0.5; 0.25 + 0.5 + 1; 0.75 + 0.5; 0.75 + 0.5 + 3
    assert found == [3 / 4, 3 / 4, 2 / 4, 2 / 4, 1 / 4]


def test_the_true_set_is_inside_as_often_as_was_promised_leaving_each_query_out_in_turn() -> None:
    """Exchangeability makes this exact, not only likely: of n + 1 queries no more than ε (n + 1) are refused by the others."""
    rng = np.random.default_rng(0)
    for ties in (False, True):
        scores = rng.integers(0, 8, 60) / 8 if ties else rng.random(60)
        for significance in (Fraction(1, 20), Fraction(1, 10), Fraction(29, 100), Fraction(1, 2)):
            refused = 0
            for query in range(60):
                model = Powerset(2.0, np.sort(np.delete(scores, query)))
                refused += bool(scores[query] > model.threshold(significance))
                p_value = Fraction(model.p_value(scores[query])).limit_denominator(60)
                assert (p_value > significance) == (scores[query] <= model.threshold(significance))
            assert refused <= significance * 60


def test_what_cannot_be_is_refused() -> None:
    model = Powerset(2.0, np.sort(np.random.default_rng(0).random(99)))
    assert np.isfinite(model.threshold(Fraction(1, 100)))
    with pytest.raises(InputError, match="needs 199 calibration queries or more to refuse any set, and 99 are there"):
        model.threshold(Fraction(1, 200))
    judged = JudgedCandidates(
        Candidates(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.int8)),
        np.zeros((1, 1), bool),
        np.zeros(1, np.int64),
        np.zeros(1),
    )
    for norm in (0.5, float("nan"), float("inf")):
        with pytest.raises(InputError, match="norm must be at least 1"):
            fit_powerset(np.zeros((1, 1)), judged, [[]], norm)
    with pytest.raises(InputError, match="label dependency must be at least 0"):
        fit_powerset(np.zeros((1, 1)), judged, [[]], 2.0, -1)


def test_a_query_without_candidates() -> None:
    model = Powerset(2.0, np.sort(np.random.default_rng(0).random(99) * 4))
    region = model.region(np.zeros(0), np.zeros(0, np.int64), Fraction(1, 10), 5)
    assert region.sets == [[]]
    assert region.count == 1
    assert region.counts[1] == 1  # one other label may be true


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(0, 6), unique=True, max_size=4), min_size=1, max_size=6),
    st.lists(st.integers(0, 8), unique=True, max_size=5),
)
def test_distance_to_the_nearest_seen_set(seen: list[list[int]], own: list[int]) -> None:
    assert LabelSets.from_lists(seen).distance(own) == min(len(set(own) ^ set(other)) for other in seen)
