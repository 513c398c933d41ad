"""Losses against their definitions written out densely in float64."""

from __future__ import annotations

import math

import pytest
import torch
from test_statistics import random_positives
from torch import Tensor

from xmc.kernels.losses import decoupled_softmax, softmax
from xmc.kernels.statistics import Positives

LOSSES = {"softmax": softmax, "decoupled_softmax": decoupled_softmax}


def definition(name: str, q: Tensor, z: Tensor, positives: Positives, temperature: float) -> Tensor:
    """The loss as printed: a loop over queries and positives."""
    scores = q.double() @ z.double().T / temperature
    rows = []
    for row in range(len(positives)):
        start, stop = int(positives.indptr[row]), int(positives.indptr[row + 1])
        labels = positives.indices[start:stop].tolist()
        weights = [1.0] * len(labels) if positives.weights is None else positives.weights[start:stop].tolist()
        if sum(weights) == 0:
            continue
        negatives = [j for j in range(len(z)) if j not in labels]
        terms = []
        for label, weight in zip(labels, weights, strict=True):
            rivals = [*negatives, label] if name == "decoupled_softmax" else list(range(len(z)))
            terms.append(weight * (scores[row, rivals].logsumexp(0) - scores[row, label]))
        rows.append(torch.stack(terms).sum() / sum(weights))
    return torch.stack(rows).mean()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tile_bytes", [300, 2**26])
def test_equals_definition(name: str, weighted: bool, tile_bytes: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    z = torch.randn(67, 5, dtype=torch.float64, requires_grad=True)
    positives = random_positives(11, 67, seed=4)
    if weighted:
        weights = torch.rand(len(positives.indices), dtype=torch.float64)
        weights[: int(positives.counts[1])] = 0.0  # a row whose weights are all zero does not count
        positives = Positives(positives.indptr, positives.indices, weights)
    expected = definition(name, q, z, positives, 0.5)
    actual = LOSSES[name](q, z, positives, 0.5, tile_bytes=tile_bytes)
    torch.testing.assert_close(actual, expected)
    for left, right in zip(torch.autograd.grad(actual, [q, z]), torch.autograd.grad(expected, [q, z]), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck_with_learned_temperature(name: str) -> None:
    torch.manual_seed(1)
    q = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    positives = Positives.from_lists([[0, 3], [], [8], [1, 2, 4]])
    assert torch.autograd.gradcheck(
        lambda *t: LOSSES[name](t[0], t[1], positives, t[2], tile_bytes=64), (q, z, temperature)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_batch_without_any_positive_is_zero(name: str) -> None:
    q = torch.randn(3, 4, requires_grad=True)
    loss = LOSSES[name](q, torch.randn(5, 4), Positives.from_lists([[], [], []]), 0.1)
    assert loss.item() == 0.0
    loss.backward()
    assert q.grad is not None
    assert not q.grad.any()


def test_hand_worked_example() -> None:
    """Scores 2, 1, 0 with labels 0 and 1 positive: N = 0, so the terms are log(1+e^-2) and log(1+e^-1)."""
    q, z = torch.tensor([[1.0]]), torch.tensor([[2.0], [1.0], [0.0]])
    positives = Positives.from_lists([[0, 1]])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert decoupled_softmax(q, z, positives, 1.0).item() == pytest.approx(expected, rel=1e-6)
    partition = math.log(math.exp(2) + math.exp(1) + 1)
    assert softmax(q, z, positives, 1.0).item() == pytest.approx(partition - 1.5, rel=1e-6)


def test_sampled_negatives_estimate_the_full_sum() -> None:
    """With log π given, exp(N) over random samples averages to exp(N) over all labels; positives stay as they are."""
    torch.manual_seed(2)
    q, z = torch.randn(1, 4, dtype=torch.float64), torch.randn(40, 4, dtype=torch.float64)
    full = (q @ z[1:].T).exp().sum().item()
    totals = []
    for _ in range(4000):
        rest = 1 + torch.randperm(39)[:10]
        chosen = torch.cat([torch.zeros(1, dtype=torch.int64), rest])
        log_inclusion = torch.log(torch.tensor([1.0] + [10 / 39] * 10, dtype=torch.float64))
        loss = decoupled_softmax(q, z[chosen], Positives.from_lists([[0]]), 1.0, log_inclusion=log_inclusion)
        score = (q @ z[0]).item()
        totals.append((math.exp(loss.item()) - 1) * math.exp(score))  # loss = log(1 + exp(N - s))
    assert sum(totals) / len(totals) == pytest.approx(full, rel=0.02)


def test_tiles_and_reference_agree_in_float32() -> None:
    torch.manual_seed(3)
    q = torch.nn.functional.normalize(torch.randn(64, 32), dim=1)
    z = torch.nn.functional.normalize(torch.randn(1001, 32), dim=1)
    positives = random_positives(64, 1001, seed=5)
    for loss in LOSSES.values():
        reference = loss(q, z, positives, 0.05, impl="reference")
        torch.testing.assert_close(loss(q, z, positives, 0.05).double(), reference, rtol=1e-5, atol=1e-6)
