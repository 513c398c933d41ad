"""Which pairs of a group are true, given how many are: against the sum over all choices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from xmc.training.supervision.counts import count_posteriors, group_posteriors


def enumerated(log_odds: np.ndarray, least: float, most: float) -> np.ndarray:
    """P(y_i = 1 | least <= Σ y <= most), over all 2^n values of y."""
    choices = np.array(list(itertools.product([0, 1], repeat=len(log_odds))))
    numbers = choices.sum(axis=1)
    weights = np.exp(choices @ log_odds) * ((numbers >= least) & (numbers <= most))
    return (weights[:, None] * choices).sum(axis=0) / weights.sum()


@pytest.mark.parametrize("size", range(1, 13))
def test_posteriors_are_those_of_enumeration(size: int) -> None:
    rng = np.random.default_rng(size)
    for spread in (0.0, 0.5, 4.0):
        odds = rng.normal(size=size) * spread
        least = int(rng.integers(0, size + 1))
        most = int(rng.integers(least, size + 1))
        found = count_posteriors(torch.from_numpy(odds)[None], torch.tensor([least]), torch.tensor([most]))
        np.testing.assert_allclose(found[0], enumerated(odds, least, most), atol=1e-10)


def test_groups_of_all_sizes_at_once() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 9, 60)
    odds = rng.normal(size=sizes.sum()) * 3
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    counts = np.array([rng.integers(0, size + 1) for size in sizes], float)
    found = group_posteriors(odds, indptr, counts, counts)
    for start, stop, count in zip(indptr[:-1], indptr[1:], counts, strict=True):
        if stop > start:
            np.testing.assert_allclose(found[start:stop], enumerated(odds[start:stop], count, count), atol=1e-9)
            assert found[start:stop].sum() == pytest.approx(count)


def test_what_all_members_have_in_common_cancels() -> None:
    odds = np.random.default_rng(1).normal(size=8)
    indptr, one = np.array([0, 8]), np.array([1.0])
    found = group_posteriors(odds, indptr, one, one)
    np.testing.assert_allclose(group_posteriors(odds + 30, indptr, one, one), found, atol=1e-9)
    np.testing.assert_allclose(found, np.exp(odds) / np.exp(odds).sum(), atol=1e-9)


def test_a_count_between_two_whole_ones_is_shared_between_them() -> None:
    odds, indptr = np.random.default_rng(2).normal(size=5), np.array([0, 5])
    found = group_posteriors(odds, indptr, np.array([1.3]), np.array([1.3]))
    expected = 0.7 * enumerated(odds, 1, 1) + 0.3 * enumerated(odds, 2, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_group_of_one_is_sure_and_huge_odds_stay_finite() -> None:
    assert group_posteriors(np.array([-700.0]), np.array([0, 1]), np.ones(1), np.ones(1)).tolist() == [1.0]
    odds = np.array([700.0, -700.0, 0.0, 650.0])
    found = group_posteriors(odds, np.array([0, 4]), np.full(1, 2.0), np.full(1, 2.0))
    np.testing.assert_allclose(found, [1, 0, 0, 1], atol=1e-9)


def test_a_count_that_cannot_be_gives_the_nearest_one() -> None:
    odds = torch.tensor([[0.3, -1.0, -torch.inf]])
    found = count_posteriors(odds, torch.tensor([3]), torch.tensor([3]))
    assert found.tolist() == [[1.0, 1.0, 0.0]]
