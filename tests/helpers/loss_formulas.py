"""Every loss as its docstring prints it: dense, in plain torch, one query after the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from random_kernel_inputs import random_positives
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from xmc.kernels.losses import Positives

Formula = Callable[..., Tensor]
"""(scores [L] of one query, its positives, their weights, all labels that count, settings by name) -> the query's loss."""


def softmax(scores: Tensor, positive: list[int], weights: Tensor, counted: list[int]) -> Tensor:
    return (weights * (scores[counted].logsumexp(0) - scores[positive])).sum() / weights.sum()


def decoupled_softmax(scores: Tensor, positive: list[int], weights: Tensor, counted: list[int]) -> Tensor:
    negative = [label for label in counted if label not in positive]
    terms = [scores[[*negative, label]].logsumexp(0) - scores[label] for label in positive]
    return (weights * torch.stack(terms)).sum() / weights.sum()


def multi_label_cluster_discrimination(
    scores: Tensor, positive: list[int], weights: Tensor, counted: list[int]
) -> Tensor:
    negative = [label for label in counted if label not in positive]
    zero = scores.new_zeros(1)
    pushed = torch.cat([zero, scores[negative]]).logsumexp(0)
    return pushed + torch.cat([zero, weights.log() - scores[positive]]).logsumexp(0)


def binary_cross_entropy(scores: Tensor, positive: list[int], weights: Tensor, counted: list[int]) -> Tensor:
    return torch.logaddexp(scores[counted], scores.new_zeros(())).sum() - (weights * scores[positive]).sum()


def soft_topk(
    scores: Tensor, positive: list[int], weights: Tensor, counted: list[int], k: int = 5, slope: float = 2.0
) -> Tensor:
    threshold = solve_threshold(scores[counted], k, slope)
    return -(weights * logsigmoid(slope * (scores[positive] + threshold))).sum() / weights.sum()


def solve_threshold(scores: Tensor, k: int, slope: float) -> Tensor:
    """t with Σ σ(α (s + t)) = k, by bisection; then one Newton step that carries the implicit gradient."""
    low, high = scores.detach().min() - scores.detach().max() - 60 / slope, 60 / slope - scores.detach().min()
    for _ in range(200):
        middle = (low + high) / 2
        if torch.sigmoid(slope * (scores.detach() + middle)).sum() < k:
            low = middle
        else:
            high = middle
    sigmoids = torch.sigmoid(slope * (scores + low))
    return low - (sigmoids.sum() - k) / (slope * sigmoids * (1 - sigmoids)).sum().detach()


def triplet_margin(
    scores: Tensor,
    positive: list[int],
    weights: Tensor,
    counted: list[int],
    k: int = 10,
    margins: tuple[float, float] = (0.1, 0.3),
    temperature: float = 0.1,
) -> Tensor:
    rest = scores[[label for label in counted if label not in positive]]
    hardest = rest.topk(min(k, len(rest))).values
    terms = []
    for label in positive:
        margin = (scores[label] - hardest).abs().detach().clamp(*margins)
        violation = (hardest - scores[label] + margin).clamp_min(0)
        chosen = violation > 0
        terms.append((violation[chosen] * (hardest[chosen] / temperature).softmax(0)).sum())
    return (weights * torch.stack(terms)).sum() / weights.sum()


FORMULAS: dict[str, Formula] = {
    "softmax": softmax,
    "decoupled_softmax": decoupled_softmax,
    "soft_topk": soft_topk,
    "binary_cross_entropy": binary_cross_entropy,
    "multi_label_cluster_discrimination": multi_label_cluster_discrimination,
    "triplet_margin": triplet_margin,
}


def dense_loss(
    name: str, scores: Tensor, positives: Positives, exclude: Positives | None = None, **settings: object
) -> Tensor:
    """The loss of scores [B, L]: the mean over the queries that have positives of any weight."""
    rows = []
    for row in range(len(positives)):
        start, stop = int(positives.indptr[row]), int(positives.indptr[row + 1])
        labels = positives.indices[start:stop].tolist()
        weights = scores.new_ones(len(labels))
        if positives.weights is not None:
            weights = positives.weights[start:stop].to(scores)
        if not weights.sum():
            continue
        excluded: list[int] = []
        if exclude is not None:
            excluded = exclude.indices[int(exclude.indptr[row]) : int(exclude.indptr[row + 1])].tolist()
        counted = [label for label in range(scores.shape[1]) if label not in excluded or label in labels]
        rows.append(FORMULAS[name](scores[row], labels, weights, counted, **settings))
    return torch.stack(rows).mean()


def cosines(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and labels of length 1, and the labels' bias; float64, with gradients."""
    queries, labels, dimension = shape
    generator = torch.Generator().manual_seed(labels)
    sizes = ((queries, dimension), (labels, dimension), (labels,))
    q, z, bias = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return normalize(q).requires_grad_(), normalize(z).requires_grad_(), bias.requires_grad_()


def weighted_positives(queries: int, labels: int) -> Positives:
    """Positives with weights that were given as Python numbers; the second row has weights of 0 only."""
    positives = random_positives(queries, labels, seed=4, full=False)
    if queries == 1:
        return Positives.from_lists([[2, 5]], [[0.1, 0.7]])
    lists = [row.tolist() for row in positives.indices.split(positives.counts.tolist())]
    weights = [[0.0 if number == 1 else (0.1 + label % 7 / 10) for label in row] for number, row in enumerate(lists)]
    return Positives.from_lists(lists, weights)


def assert_agree(actual: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Values, and gradients in each of the inputs, differ by at most 1e-12 of the largest number of each tensor."""
    gradients = [torch.autograd.grad(value, inputs, retain_graph=True) for value in (actual, expected)]
    for left, right in zip((actual, *gradients[0]), (expected, *gradients[1]), strict=True):
        assert left.dtype == torch.float64
        largest = max(float(right.detach().abs().max()), 1e-3)
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12 * largest)
