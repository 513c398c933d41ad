"""What a step minimises, against plain formulas over all scores in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import normalize
from worlds import tiny_config

from xmc.config import TrainConfig
from xmc.errors import ConfigError
from xmc.kernels.positives import Positives
from xmc.training.distributed import World
from xmc.training.negatives import Candidates
from xmc.training.objective import Objective, transposed

QUERIES, LABELS, DIMENSION = 7, 11, 6
POSITIVES = [[0, 3], [1], [], [4, 5, 6], [10], [2], [7, 0]]
EXCLUDED = [[1], [], [], [0], [], [9, 10], []]
TAUGHT = {(0, 0): 0.75, (0, 2): 0.25, (1, 1): 1.0, (3, 4): 0.5, (3, 9): 0.5, (6, 0): 1.0}


def candidates(taught: bool = False) -> Candidates:
    rows = torch.arange(LABELS)
    pairs = None
    if taught:
        entries = np.array(list(TAUGHT))
        matrix = csr_matrix((list(TAUGHT.values()), (entries[:, 0], entries[:, 1])), (QUERIES, LABELS))
        pairs = Positives.from_scipy(matrix, weighted=True)
    return Candidates(rows, rows, Positives.from_lists(POSITIVES), Positives.from_lists(EXCLUDED), taught=pairs)


def embeddings(count: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, DIMENSION, generator=random, dtype=torch.float64)).requires_grad_()


def objective(config: TrainConfig, *given: Tensor | None, taught: bool = False) -> Tensor:
    queries, labels, texts = given
    assert queries is not None
    assert labels is not None
    one = Objective(config, DIMENSION, World())
    return one(queries, labels, texts, candidates(taught), slice(0, LABELS), torch.tensor(0.2, dtype=torch.float64))


def triplets(scores: Tensor, positives: list[list[int]], excluded: list[list[int]], k: int) -> Tensor:
    total = []
    for row, own in enumerate(positives):
        others = [j for j in range(scores.shape[1]) if j not in own and j not in excluded[row]]
        hardest = sorted(others, key=lambda j: -scores[row, j].item())[:k]
        terms = []
        for positive in own:
            gaps = scores[row, hardest] - scores[row, positive]
            lost = (gaps + gaps.detach().abs().clamp(0.1, 0.3)).clamp_min(0)
            weights = torch.where(lost > 0, (scores[row, hardest] / 0.1).exp(), 0.0)
            terms.append((lost * weights).sum() / weights.sum().clamp_min(1e-300))
        if terms:
            total.append(torch.stack(terms).mean())
    return torch.stack(total).mean()


def regularised(queries: Tensor, texts: Tensor, prototypes: Tensor, k: int) -> Tensor:
    alone, scores = queries @ texts.T, queries @ prototypes.T
    pulled, pushed = [], []
    for row, own in enumerate(POSITIVES):
        others = [j for j in range(LABELS) if j not in own and j not in EXCLUDED[row]]
        pulled += [(alone[row, j] - scores[row, j] + 0.1).clamp_min(0) for j in own]
        if own:
            hardest = sorted(others, key=lambda j: -scores[row, j].item())[:k]
            pushed += [(scores[row, j] - alone[row, j] + 0.1).clamp_min(0) for j in hardest]
    means = [torch.stack([one for one in terms if one > 0]).mean() for terms in (pulled, pushed)]
    return (means[0] + means[1]) / 2


def turned(lists: list[list[int]]) -> list[list[int]]:
    return [[row for row, own in enumerate(lists) if label in own] for label in range(LABELS)]


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of))


def test_prototypes_with_the_triplet_loss() -> None:
    """The paper's four parts: prototypes, texts, texts against queries, and a tenth of the regularisation."""
    queries, labels, texts = embeddings(QUERIES, 0), embeddings(LABELS, 1), embeddings(LABELS, 2)
    config = tiny_config(loss="triplet_margin", label_vectors="prototypes", margin={"negatives": 3})
    found = objective(config, queries, labels, texts)
    expected = triplets(queries @ labels.T, POSITIVES, EXCLUDED, 3) + triplets(
        queries @ texts.T, POSITIVES, EXCLUDED, 3
    )
    expected = expected + triplets(texts @ queries.T, turned(POSITIVES), turned(EXCLUDED), 3)
    expected = expected + 0.1 * regularised(queries, texts, labels, 3)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        gradients(found, queries, labels, texts), gradients(expected, queries, labels, texts), strict=True
    ):
        torch.testing.assert_close(one, other)


def softmax_over(scores: Tensor, positives: list[list[int]], excluded: list[list[int]]) -> Tensor:
    total = []
    for row, own in enumerate(positives):
        others = [j for j in range(scores.shape[1]) if j not in own and j not in excluded[row]]
        terms = [torch.logsumexp(scores[row, [j, *others]], 0) - scores[row, j] for j in own]
        if terms:
            total.append(torch.stack(terms).mean())
    return torch.stack(total).mean()


def test_prototypes_with_a_softmax_and_parts_left_out() -> None:
    queries, labels, texts = embeddings(QUERIES, 0), embeddings(LABELS, 1), embeddings(LABELS, 2)
    weights = {"text_weight": 0.0, "label_to_query_weight": 0.5, "regularisation": 0.0}
    found = objective(tiny_config(label_vectors="prototypes", prototypes=weights), queries, labels, texts)
    expected = softmax_over(queries @ labels.T / 0.2, POSITIVES, EXCLUDED)
    expected = expected + 0.5 * softmax_over(texts @ queries.T / 0.2, turned(POSITIVES), turned(EXCLUDED))
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        gradients(found, queries, labels, texts), gradients(expected, queries, labels, texts), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "loss", ["decoupled_softmax", "softmax", "soft_topk", "triplet_margin", "binary_cross_entropy"]
)
def test_nested_dimensions_are_the_mean_over_cut_embeddings(loss: str) -> None:
    queries, labels = embeddings(QUERIES, 0), embeddings(LABELS, 1)
    found = objective(tiny_config(loss=loss, nested_dimensions=[2, 3]), queries, labels, None)
    given = [(normalize(queries[:, :size]), normalize(labels[:, :size])) for size in (2, 3)] + [(queries, labels)]
    temperature, places = torch.tensor(0.2, dtype=torch.float64), slice(0, LABELS)
    parts = [
        Objective(tiny_config(loss=loss), one.shape[1], World())(one, other, None, candidates(), places, temperature)
        for one, other in given
    ]
    expected = torch.stack(parts).mean()
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, queries, labels), gradients(expected, queries, labels), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_a_teacher_adds_the_cross_entropy_to_its_labels(weight: float) -> None:
    queries, labels = embeddings(QUERIES, 0), embeddings(LABELS, 1)
    config = tiny_config(distillation={"teacher": "some run", "weight": weight})
    found = objective(config, queries, labels, None, taught=True)
    logarithms = torch.log_softmax(queries @ labels.T / 0.2, 1)
    rows: dict[int, Any] = {}
    for (row, label), share in TAUGHT.items():
        rows[row] = rows.get(row, 0.0) - share * logarithms[row, label]
    expected = weight * torch.stack(list(rows.values())).mean()
    expected = expected + (1 - weight) * softmax_over(queries @ labels.T / 0.2, POSITIVES, EXCLUDED)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, queries, labels), gradients(expected, queries, labels), strict=True):
        torch.testing.assert_close(one, other)


def test_transposed_pairs_are_those_of_the_transposed_matrix() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        queries, labels = rng.integers(1, 9, 2)
        matrix = csr_matrix(rng.random((queries, labels)) * (rng.random((queries, labels)) < 0.4))
        found = transposed(Positives.from_scipy(matrix, weighted=True), int(labels))
        expected = Positives.from_scipy(csr_matrix(matrix.T), weighted=True)
        assert torch.equal(found.indptr, expected.indptr)
        assert torch.equal(found.indices.long(), expected.indices.long())
        assert found.weights is not None
        assert expected.weights is not None
        assert torch.equal(found.weights, expected.weights)


def test_dimensions_that_do_not_nest_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"nested_dimensions must be below the 6 of the encoder, but are \[2, 6\]"):
        Objective(tiny_config(nested_dimensions=[2, 6]), DIMENSION, World())
    with pytest.raises(ConfigError, match=r"nested_dimensions \[2, 2\] names one twice"):
        tiny_config(nested_dimensions=[2, 2])
    with pytest.raises(ConfigError, match=r"nested_dimensions must be at least 1 each"):
        tiny_config(nested_dimensions=[0])
