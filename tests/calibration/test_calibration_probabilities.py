"""Models of probability: what they recover, what they do not depend on, and how their errors are measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from xmc.calibration.candidates import FREQUENCY_GROUPS, Candidates, JudgedCandidates, draws, frequency_groups
from xmc.calibration.fitting import choose_probabilities, fit_probabilities
from xmc.calibration.probabilities import BANDS, GROUPS, Probabilities, log_normaliser
from xmc.calibration.reliability import reliability, reliability_by_group, reliability_by_rank
from xmc.errors import InputError, NotFiniteError

TEMPERATURE = 0.1


def world(n: int = 3000, k: int = 15, offset: float = 0.0, seed: int = 0) -> tuple[np.ndarray, JudgedCandidates]:
    """Candidates that are true with logit 8 s - 0.4 N - 2 plus, for rare labels, an offset; the last ranks are ragged."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0.3, 0.25, (n, k)), axis=1).astype(np.float32)
    scores[np.arange(k)[None] >= rng.integers(k - 3, k + 1, n)[:, None]] = -np.inf
    groups = rng.integers(0, 3, (n, k)).astype(np.int8)
    candidates = Candidates(scores, groups)
    linear = 0.8 * np.where(np.isfinite(scores), scores, 0) / TEMPERATURE
    linear = linear - 0.4 * log_normaliser(candidates, TEMPERATURE)[:, None] - 2 + offset * (groups == 0)
    truth = np.where(np.isfinite(scores), expit(linear), 0)
    hits = rng.random((n, k)) < truth
    return truth, JudgedCandidates(candidates, hits, hits.sum(axis=1), rng.random(n))


def test_the_logistic_model_recovers_the_probabilities_that_made_the_data() -> None:
    truth, judged = world()
    fitted = fit_probabilities(judged, TEMPERATURE, isotonic=False, by_frequency=False)
    there = np.isfinite(judged.candidates.scores)
    assert np.abs(fitted(judged.candidates) - truth)[there].mean() < 0.01
    assert fitted.method == "platt"
    assert (fitted(judged.candidates)[~there] == 0).all()
    stepped = fit_probabilities(judged, TEMPERATURE, isotonic=True, by_frequency=False)
    assert np.abs(stepped(judged.candidates) - truth)[there].mean() < 0.03
    assert stepped.method == "isotonic"
    order = np.argsort(fitted.sums(judged.candidates)[:, 0])
    assert (np.diff(stepped(judged.candidates)[order, 0]) >= 0).all()


def test_frequency_groups_are_found_where_they_matter_and_shrunk_where_they_do_not() -> None:
    for offset, wanted in ((0.0, False), (2.0, True)):
        _, judged = world(offset=offset)
        choice = choose_probabilities(judged, TEMPERATURE, by_frequency=True)
        assert choice.probabilities.method.endswith("by frequency") is wanted
        assert set(choice.brier) == {"platt", "isotonic", "platt by frequency", "isotonic by frequency"}
        name = choice.probabilities.method
        assert choice.brier[name] == min(choice.brier.values())
    every = np.arange(len(FREQUENCY_GROUPS), dtype=np.int8)
    same = np.full((len(every), 12), 0.3, np.float32)  # one query for each group, of which its eleventh label is
    groups = np.ones_like(same, dtype=np.int8)
    groups[:, 10] = every
    for given, tolerance in ((judged, 0.3), (judged.take(np.arange(150)), 1.5)):
        sums = fit_probabilities(given, TEMPERATURE, isotonic=False, by_frequency=True).sums(Candidates(same, groups))[
            :, 10
        ]
        assert sums[0] - sums[1] == pytest.approx(2, abs=tolerance)
        assert np.abs(sums[3:] - sums[1]).max() < 2.5  # groups without any label to learn from
    assert "by frequency" not in str(choose_probabilities(judged, TEMPERATURE, by_frequency=False).brier)


def test_the_order_of_queries_changes_nothing() -> None:
    _, judged = world(600)
    shuffled = judged.take(np.random.default_rng(1).permutation(600))
    one, other = (choose_probabilities(given, TEMPERATURE, True) for given in (judged, shuffled))
    assert one.brier == other.brier
    np.testing.assert_array_equal(one.probabilities.weights, other.probabilities.weights)
    np.testing.assert_array_equal(one.probabilities(judged.candidates), other.probabilities(judged.candidates))


def test_a_query_is_judged_by_itself() -> None:
    _, judged = world(2000)
    model = fit_probabilities(judged, TEMPERATURE, isotonic=True, by_frequency=True)
    whole = model(judged.candidates)
    for rows in (np.array([7]), np.arange(1990, 2000)):
        np.testing.assert_array_equal(model(judged.candidates.take(rows)), whole[rows])


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_any_number_of_candidates(k: int) -> None:
    rng = np.random.default_rng(k)
    scores = -np.sort(-rng.random((200, k)), axis=1).astype(np.float32)
    scores[3] = -np.inf
    hits = (rng.random((200, k)) < 0.3) & np.isfinite(scores)
    judged = JudgedCandidates(Candidates(scores, np.zeros((200, k), np.int8)), hits, hits.sum(axis=1), rng.random(200))
    found = choose_probabilities(judged, TEMPERATURE, True).probabilities(judged.candidates)
    assert found.shape == (200, k)
    assert (found[3] == 0).all()
    assert np.isfinite(found).all()
    assert found[np.isfinite(scores)].mean() == pytest.approx(hits[np.isfinite(scores)].mean(), abs=0.02)


def test_all_true_or_none_is_never_certain() -> None:
    for value in (False, True):
        hits = np.full((200, 4), value)
        scores = -np.sort(-np.random.default_rng(0).random((200, 4)), axis=1).astype(np.float32)
        judged = JudgedCandidates(
            Candidates(scores, np.zeros((200, 4), np.int8)),
            hits,
            hits.sum(axis=1),
            np.random.default_rng(1).random(200),
        )
        found = choose_probabilities(judged, TEMPERATURE, False).probabilities(judged.candidates)
        assert ((found > 0) & (found < 1)).all()
        assert (found > 0.9 if value else found < 0.1).all()


def test_what_is_no_number_is_refused() -> None:
    groups = np.zeros((3, 2), np.int8)
    for wrong in (np.nan, np.inf):
        with pytest.raises(NotFiniteError, match="scores of query 1 hold NaN or infinity"):
            Candidates(np.array([[1, 0], [wrong, 0], [1, 0]], np.float32), groups)
    with pytest.raises(InputError, match="one shape"):
        Candidates(np.zeros((3, 2), np.float32), groups[:2])
    with pytest.raises(InputError, match="more hits than true labels"):
        JudgedCandidates(
            Candidates(np.zeros((3, 2), np.float32), groups), np.ones((3, 2), bool), np.ones(3, np.int64), np.zeros(3)
        )


def test_groups_and_draws() -> None:
    counts = np.array([0, 1, 2, 3, 4, 7, 8, 63, 64, 10**6])
    names = [FREQUENCY_GROUPS[group] for group in frequency_groups(counts)]
    assert names == ["none", "1", *["2 to 3"] * 2, *["4 to 7"] * 2, "8 to 15", "32 to 63", *["64 and more"] * 2]
    drawn = draws([f"q{row}" for row in range(5000)], 0)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert abs((drawn < 0.5).mean() - 0.5) < 0.03
    assert abs(np.corrcoef(drawn, draws([f"q{row}" for row in range(5000)], 1))[0, 1]) < 0.05
    assert draws(["q7", None], 0)[0] == drawn[7]


def test_reliability_is_the_textbook_one() -> None:
    p = np.repeat([0.1, 0.9], 500)
    y = np.concatenate([np.arange(500) < 100, np.arange(500) < 400])
    found = reliability("all", p, y)
    assert [one.predictions for one in found.bins] == [100] * 10
    assert sum(one.true * one.predictions for one in found.bins) == y.sum()
    assert found.brier == pytest.approx(((p - y) ** 2).mean())
    parts = np.array_split(np.arange(1000), 10)
    assert found.error == pytest.approx(np.mean([abs(p[part].mean() - y[part].mean()) for part in parts]))
    drawn = np.random.default_rng(0).random(20_000)
    right = reliability("right", drawn, np.random.default_rng(1).random(20_000) < drawn)
    assert right.error < 2 * right.floor
    assert right.floor < 0.01
    wrong = reliability("wrong", drawn, np.random.default_rng(1).random(20_000) < drawn**2)
    assert wrong.error == pytest.approx(1 / 6, abs=0.01)
    assert reliability("none", np.zeros(0), np.zeros(0, bool)).bins == ()


def test_reliability_is_told_apart_by_rank_and_frequency() -> None:
    truth, judged = world()
    ranks, groups = reliability_by_rank(truth, judged), reliability_by_group(truth, judged)
    assert [one.name for one in ranks] == ["rank 1", "ranks 2 to 3", "ranks 4 to 5", "ranks 6 to 10", "ranks 11 to 100"]
    assert sum(one.predictions for one in ranks[0].bins) == 3000
    assert [sum(one.predictions for one in found.bins) for found in groups] == [
        int(((judged.candidates.groups[:, :10] == group) & np.isfinite(judged.candidates.scores[:, :10])).sum())
        for group in range(3)
    ]
    assert all(one.error < 3 * one.floor for one in [*ranks, *groups])
    assert (
        Probabilities(1.0, np.zeros(len(BANDS)), np.zeros((len(BANDS), GROUPS + len(FREQUENCY_GROUPS)))).method
        == "platt"
    )
