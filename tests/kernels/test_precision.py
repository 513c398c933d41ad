"""Float64 embeddings: statistics, searches and every gradient agree with dense formulas to 1e-12, as losses do.

Every number here is a Python number that float32 cannot hold. `test_loss_contract.py` holds every loss to the same.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_formulas import assert_agree, cosines, dense_loss
from random_kernel_inputs import random_positives

from xmc.errors import InputError
from xmc.kernels import losses
from xmc.kernels.losses import Positives
from xmc.kernels.statistics import label_sigmoid_sums, label_statistics, sigmoid_statistics, softplus_sum
from xmc.kernels.topk import topk_inner_product

SHAPES = [(1, 7, 3), (11, 67, 5), (23, 401, 17)]
TEMPERATURE, SLOPE = 0.07, 1.3


@pytest.mark.parametrize("start", ["nothing", "far"])
def test_soft_topk_of_many_equal_scores(start: str) -> None:
    """Where thousands of labels stand near the threshold, too, and whatever threshold it begins with."""
    torch.manual_seed(3)
    queries = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    labels = (torch.randn(9001, 7, dtype=torch.float64) * 0.3).requires_grad_()
    positives = Positives.from_lists([[0, 9], [1], [2], [], [4000]])
    threshold = None if start == "nothing" else torch.full((5,), 0.7, dtype=torch.float64)
    actual = losses.soft_topk(queries, labels, positives, 0.9, k=3, slope=SLOPE, threshold=threshold)
    expected = dense_loss("soft_topk", queries @ labels.T / 0.9, positives, k=3, slope=SLOPE)
    assert_agree(actual, expected, [queries, labels])


def test_prototype_regularisation() -> None:
    torch.manual_seed(5)
    queries, labels, _ = cosines((11, 67, 5))
    prototypes = (labels.detach() + 0.3 * torch.randn(67, 5, dtype=torch.float64)).requires_grad_()
    positives = random_positives(11, 67, seed=4, full=False)
    actual = losses.prototype_regularisation(queries, labels, prototypes, positives, margin=0.1, k=3)
    scores, better = queries @ labels.T, queries @ prototypes.T
    pulled, pushed = [], []
    for row, chosen in enumerate(positives.indices.split(positives.counts.tolist())):
        pulled.append((scores[row, chosen] - better[row, chosen] + 0.1).clamp_min(0))
        if len(chosen):
            hardest = better[row].detach().index_fill(0, chosen, -torch.inf).topk(3).indices
            pushed.append((better[row, hardest] - scores[row, hardest] + 0.1).clamp_min(0))
    terms = [torch.cat(group) for group in (pulled, pushed)]
    expected = sum((group[group > 0].mean() / 2 for group in terms), torch.zeros(()))
    assert_agree(actual, expected, [queries, labels, prototypes])


@pytest.mark.parametrize("tile_bytes", [520, 2**26])
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics(shape: tuple[int, int, int], tile_bytes: int) -> None:
    queries, labels, bias = cosines(shape)
    positives = random_positives(shape[0], shape[1], seed=4, full=False)
    options: dict[str, Any] = {"label_bias": bias, "tile_bytes": tile_bytes}
    scores = queries @ labels.T / TEMPERATURE + bias
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    mask[positives.rows, positives.indices] = True
    weights = torch.randn(shape[0], dtype=torch.float64)

    negatives, of_positives = label_statistics(queries, labels, positives, TEMPERATURE, **options)
    expected = (scores.masked_fill(mask, -torch.inf).logsumexp(1) * weights).sum() + scores[mask].sin().sum()
    assert_agree((negatives * weights).sum() + of_positives.sin().sum(), expected, [queries, labels, bias])

    shift = torch.randn(shape[0], dtype=torch.float64, requires_grad=True)
    total, derivative = sigmoid_statistics(queries, labels, shift, SLOPE, temperature=TEMPERATURE, **options)
    sigmoids = torch.sigmoid(SLOPE * (scores + shift[:, None]))
    assert_agree((total * weights).sum(), (sigmoids.sum(1) * weights).sum(), [queries, labels, bias, shift])
    torch.testing.assert_close(derivative, (SLOPE * sigmoids * (1 - sigmoids)).sum(1).detach(), rtol=1e-12, atol=1e-12)

    total = softplus_sum(queries, labels, temperature=TEMPERATURE, **options)
    expected = torch.logaddexp(scores, scores.new_zeros(())).sum(1)
    assert_agree((total * weights).sum(), (expected * weights).sum(), [queries, labels, bias])


@pytest.mark.parametrize("tile_bytes", [520, 2**26])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_over_the_queries(shape: tuple[int, int, int], tile_bytes: int) -> None:
    queries, labels, bias = cosines(shape)
    own = torch.linspace(0.3, 1, shape[1], dtype=torch.float64).requires_grad_()
    temperature = torch.tensor(TEMPERATURE, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(shape[1], dtype=torch.float64)
    total = label_sigmoid_sums(queries, labels, own, temperature=temperature, label_bias=bias, tile_bytes=tile_bytes)
    expected = torch.sigmoid((queries @ labels.T / temperature + bias) / own).sum(0)
    assert_agree((total * weights).sum(), (expected * weights).sum(), [queries, labels, own, temperature, bias])
    plain = label_sigmoid_sums(queries, labels, temperature=TEMPERATURE, tile_bytes=tile_bytes)
    torch.testing.assert_close(plain, torch.sigmoid(queries @ labels.T / TEMPERATURE).sum(0), rtol=1e-12, atol=1e-12)


def test_sums_over_the_queries_refuse_what_is_not_of_the_labels() -> None:
    queries, labels = torch.ones(3, 2), torch.ones(5, 2)
    with pytest.raises(InputError, match=r"label_temperatures must have shape \(5,\), not \(3,\)"):
        label_sigmoid_sums(queries, labels, torch.ones(3))
    with pytest.raises(InputError, match=r"label_bias must have shape \(5,\), not \(3,\)"):
        label_sigmoid_sums(queries, labels, label_bias=torch.ones(3))


@pytest.mark.parametrize("shape", SHAPES)
def test_topk(shape: tuple[int, int, int]) -> None:
    queries, labels, bias = (tensor.detach() for tensor in cosines(shape))
    scores, indices = topk_inner_product(queries, labels, 5, label_bias=bias, tile_bytes=4000)
    expected = (queries @ labels.T + bias).topk(5)
    torch.testing.assert_close(scores, expected.values, rtol=1e-12, atol=1e-12)
    assert torch.equal(indices, expected.indices)
