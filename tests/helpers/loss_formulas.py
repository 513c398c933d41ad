"""Every loss as its docstring prints it: dense, in plain torch, one query after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from random_kernel_inputs import random_positives
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from xmc.kernels.losses import Positives

Formula = Callable[..., Tensor]
"""(scores [L] of one query, its entries, settings by name) -> the query's loss."""


@dataclass
class RowEntries:
    """The entries of one query: their labels, pull and push (None where none was given), float64; all labels that count.

    inclusion: float64 [L], the probability that a label is in the sample; ones without a sample.
    """

    labels: list[int]
    pull: Tensor
    push: Tensor | None
    counted: list[int]
    inclusion: Tensor

    @property
    def others(self) -> list[int]:
        """The labels that count and have no entry."""
        return [label for label in self.counted if label not in self.labels]

    def mean(self, terms: list[Tensor]) -> Tensor:
        """The mean of a term for each entry, by pull; an entry without a pull has no term."""
        kept = [pull * term for pull, term in zip(self.pull, terms, strict=True) if pull > 0]
        return torch.stack(kept).sum() / self.pull.sum()

    def negatives(self, but: int | None = None) -> tuple[list[int], Tensor]:
        """The labels that compete, and how often: those without an entry, and entries by their push, save for one label."""
        labels, times = list(self.others), [1 / self.inclusion[label] for label in self.others]
        for number, label in enumerate(self.labels):
            if self.push is not None and self.push[number] > 0 and label != but:
                labels.append(label)
                times.append(self.push[number] / self.inclusion[label])
        return labels, torch.stack(times) if times else self.pull[:0]


def log_sum_exp(scores: Tensor, labels: list[int], times: Tensor) -> Tensor:
    """log Σ times · exp(score), of at least one label."""
    return (scores[labels] + times.log()).logsumexp(0)


def softmax(scores: Tensor, row: RowEntries) -> Tensor:
    """A label without an entry counts once, a positive max(1, n) times, another entry n times."""
    labels, times = list(row.others), [1 / row.inclusion[label] for label in row.others]
    for number, label in enumerate(row.labels):
        push = scores.new_ones(()) if row.push is None else row.push[number]
        count = push / row.inclusion[label]
        if row.pull[number] > 0 or row.push is None:
            count = push.clamp_min(1)
        if count > 0:
            labels.append(label)
            times.append(count)
    partition = log_sum_exp(scores, labels, torch.stack(times))
    return row.mean([partition - scores[label] for label in row.labels])


def decoupled_softmax(scores: Tensor, row: RowEntries) -> Tensor:
    terms = []
    for label in row.labels:
        labels, times = row.negatives(but=label)
        terms.append(log_sum_exp(scores, [*labels, label], torch.cat([times, scores.new_ones(1)])) - scores[label])
    return row.mean(terms)


def multi_label_cluster_discrimination(scores: Tensor, row: RowEntries) -> Tensor:
    zero = scores.new_zeros(1)
    labels, times = row.negatives()
    pushed = torch.cat([zero, scores[labels] + times.log()]).logsumexp(0)
    return pushed + torch.cat([zero, row.pull.log() - scores[row.labels]]).logsumexp(0)


def binary_cross_entropy(scores: Tensor, row: RowEntries) -> Tensor:
    """Positives without a push have the target y, which is a push of 1 - y."""
    zero = scores.new_zeros(())
    total = torch.logaddexp(scores[row.others], zero).sum()
    for number, label in enumerate(row.labels):
        pull = row.pull[number]
        push = 1 - pull if row.push is None else row.push[number]
        if push == 0 and pull > 0:
            push = 1 - pull
        total = total + push * torch.logaddexp(scores[label], zero) + pull * torch.logaddexp(-scores[label], zero)
    return total


def soft_topk(scores: Tensor, row: RowEntries, k: int = 5, slope: float = 2.0) -> Tensor:
    passed = slope * (scores + solve_threshold(scores[row.counted], k, slope))
    total = row.mean([-logsigmoid(passed[label]) for label in row.labels])
    if row.push is None:
        return total
    above = (row.push - 1).clamp_min(0)
    return total - (above * logsigmoid(-passed[row.labels])).sum() / row.pull.sum()


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
    row: RowEntries,
    k: int = 10,
    margins: tuple[float, float] = (0.1, 0.3),
    temperature: float = 0.1,
) -> Tensor:
    hardest = scores[row.others].topk(min(k, len(row.others))).values
    terms = []
    for label in row.labels:
        pushed = [number for number, other in enumerate(row.labels) if row.push is not None and other != label]
        pushed = [number for number in pushed if row.push is not None and row.push[number] > 0]
        negative = torch.cat([hardest, scores[[row.labels[number] for number in pushed]]])
        times = torch.cat([torch.ones_like(hardest), *(row.push[n : n + 1] for n in pushed if row.push is not None)])
        margin = (scores[label] - negative).abs().detach().clamp(*margins)
        violation = (negative - scores[label] + margin).clamp_min(0)
        chosen = violation > 0
        weights = (negative[chosen] / temperature).softmax(0)
        terms.append((times[chosen] * violation[chosen] * weights).sum())
    return row.mean(terms)


FORMULAS: dict[str, Formula] = {
    "softmax": softmax,
    "decoupled_softmax": decoupled_softmax,
    "soft_topk": soft_topk,
    "binary_cross_entropy": binary_cross_entropy,
    "multi_label_cluster_discrimination": multi_label_cluster_discrimination,
    "triplet_margin": triplet_margin,
}


def dense_loss(
    name: str,
    scores: Tensor,
    positives: Positives,
    exclude: Positives | None = None,
    inclusion: Tensor | None = None,
    **settings: object,
) -> Tensor:
    """The loss of scores [B, L]: the mean over the queries that have an entry with a pull. inclusion: as in `RowEntries`."""
    rows = []
    for row in range(len(positives)):
        start, stop = int(positives.indptr[row]), int(positives.indptr[row + 1])
        labels = positives.indices[start:stop].tolist()
        pull = scores.new_ones(len(labels))
        if positives.weights is not None:
            pull = positives.weights[start:stop].to(scores)
        if not pull.sum():
            continue
        excluded: list[int] = []
        if exclude is not None:
            excluded = exclude.indices[int(exclude.indptr[row]) : int(exclude.indptr[row + 1])].tolist()
        counted = [label for label in range(scores.shape[1]) if label not in excluded or label in labels]
        push = None if positives.push is None else positives.push[start:stop].to(scores)
        probabilities = scores.new_ones(scores.shape[1]) if inclusion is None else inclusion
        entries = RowEntries(labels, pull, push, counted, probabilities)
        rows.append(FORMULAS[name](scores[row], entries, **settings))
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
