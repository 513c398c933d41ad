"""Entries with a push: every loss against its formula written out, and what each kind of entry comes to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_formulas import assert_agree, cosines, dense_loss
from random_kernel_inputs import needs_triton, random_entries, random_positives
from torch import Tensor
from torch.nn.functional import normalize

from xmc.errors import InputError
from xmc.kernels.losses import LOSSES, Positives, decoupled_softmax, prototype_regularisation, soft_topk, triplet_margin
from xmc.kernels.losses.loss import argument_names
from xmc.kernels.losses.pushes import other_entries_logsumexp
from xmc.kernels.shards import LabelShard

SHAPES = [(1, 17, 3), (11, 67, 5), (17, 131, 9)]
TEMPERATURE = 0.07
SETTINGS: dict[str, dict[str, Any]] = {
    "soft_topk": {"k": 3, "slope": 1.3},
    "triplet_margin": {"k": 4, "margins": (0.1, 0.7), "temperature": 0.3},
}


def of(name: str, queries: Tensor, labels: Tensor, entries: Positives, **options: Any) -> Tensor:
    settings = SETTINGS.get(name, {})
    return LOSSES[name].with_settings(**settings)(queries, labels, entries, TEMPERATURE, **options)


def takes(name: str, option: str) -> bool:
    return option in argument_names(LOSSES[name].function)


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "sampled"),
    [(name, sampled) for name in LOSSES for sampled in (False, *([True] * takes(name, "log_inclusion")))],
)
def test_value_and_gradients_equal_the_formula_in_float64(
    name: str, shape: tuple[int, int, int], sampled: bool, impl: str
) -> None:
    """To 1e-12, with excluded pairs, a bias of labels, a learned temperature, and in a sample of labels."""
    queries, labels, bias = cosines(shape)
    entries = random_entries(shape[0], shape[1], seed=shape[1])
    exclude = random_positives(shape[0], shape[1], seed=5, full=False, most=3)
    temperature = torch.tensor(TEMPERATURE, dtype=torch.float64, requires_grad=True)
    inputs, scores = [queries, labels], queries @ labels.T
    options: dict[str, Any] = {"exclude": exclude, "impl": impl}
    inclusion = None
    if sampled:
        inclusion = torch.linspace(0.05, 1, shape[1], dtype=torch.float64)
        options["log_inclusion"] = inclusion.log()
    if LOSSES[name].takes_temperature:
        inputs, scores = [*inputs, temperature], scores / temperature
    if takes(name, "label_bias"):
        inputs, scores, options["label_bias"] = [*inputs, bias], scores + bias, bias
    expected = dense_loss(name, scores, entries, exclude, inclusion, **SETTINGS.get(name, {}))
    loss = LOSSES[name].with_settings(**SETTINGS.get(name, {}))
    assert_agree(loss(queries, labels, entries, temperature, **options), expected, inputs)


@pytest.mark.parametrize("name", LOSSES)
def test_positives_without_a_push_are_the_same_beside_entries_that_have_one(name: str) -> None:
    """Zeros given as pushes change nothing, nor does a row of rejected entries: bit for bit."""
    queries, labels, _ = cosines((11, 67, 5))
    plain = random_positives(11, 67, seed=4, full=False)
    weights = 0.1 + torch.arange(len(plain.indices), dtype=torch.float64) % 7 / 5
    weighted = Positives(plain.indptr, plain.indices, weights)
    pushed = Positives(plain.indptr, plain.indices, weights, torch.zeros_like(weights))
    assert torch.equal(of(name, queries, labels, pushed), of(name, queries, labels, weighted))
    lists = [row.tolist() for row in plain.indices.split(plain.counts.tolist())]
    assert not lists[0]
    beside = Positives.from_lists(
        [[3, 9], *lists[1:]],
        [[0.0, 0.0], *(row.tolist() for row in weights.split(plain.counts.tolist())[1:])],
        [[2.0, 0.5], *([0.0] * len(row) for row in lists[1:])],
    )
    values = [of(name, queries, labels, one) for one in (beside, weighted)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("soft_topk", "triplet_margin")])
def test_corners_are_what_they_are_called(name: str) -> None:
    """(0, 0) is an excluded pair, and (0, 1) a pair without an entry."""
    queries, labels, _ = cosines((3, 31, 5))
    positives, without = Positives.from_lists([[2], [7, 9], [1]]), Positives.from_lists([[4, 5], [], [8]])
    given = [[2, 4, 5], [7, 9], [1, 8]]
    pull = [[1.0, 0, 0], [1, 1], [1, 0]]
    excluded = Positives.from_lists(given, pull, [[0.0] * len(row) for row in given])
    torch.testing.assert_close(
        of(name, queries, labels, excluded), of(name, queries, labels, positives, exclude=without)
    )
    ordinary = Positives.from_lists(given, pull, [[1.0 - number for number in row] for row in pull])
    torch.testing.assert_close(of(name, queries, labels, ordinary), of(name, queries, labels, positives))


@pytest.mark.parametrize("name", LOSSES)
def test_a_push_pushes(name: str) -> None:
    """The more so the larger it is: the gradient in the score of a rejected label grows."""
    queries, labels = torch.eye(1, dtype=torch.float64), torch.full((9, 1), 0.3, dtype=torch.float64)
    labels = (labels * torch.linspace(1, 0.8, 9, dtype=torch.float64)[:, None]).requires_grad_()
    gradients = []
    for push in (0.0, 1.5, 3.0):
        entries = Positives.from_lists([[0, 4]], [[1.0, 0.0]], [[0.0, push]])
        loss = of(name, queries, labels, entries)
        gradients.append(float(torch.autograd.grad(loss, labels)[0][4]))
    assert gradients[2] > gradients[1] > max(gradients[0], 0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_rejected_pairs_alone_is_zero(name: str) -> None:
    queries = torch.randn(2, 4, requires_grad=True)
    entries = Positives.from_lists([[1, 3], [0]], [[0.0, 0.0], [0.0]], [[2.0, 0.0], [1.5]])
    loss = LOSSES[name](queries, torch.randn(7, 4), entries)
    assert loss.item() == 0.0
    loss.backward()
    assert queries.grad is not None
    assert not queries.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_rows_without_negatives(name: str) -> None:
    """Where every label is an entry, or excluded, the loss and its gradients are finite."""
    queries, labels = torch.randn(3, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    every = list(range(7))
    entries = Positives.from_lists(
        [every] * 3, [[0.0] * 7, [1.0, *[0.0] * 6], [0.5] * 7], [[0.0] * 7] * 2 + [[2.0] * 7]
    )
    loss = of(name, queries, labels, entries, exclude=Positives.from_lists([every] * 3))
    gradients = torch.autograd.grad(loss, [queries, labels])
    assert loss.isfinite()
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_an_own_push_that_dominates_is_left_out_without_cancelling() -> None:
    """Scores 60 apart in float32: what is left beside the largest is exact, and so are equal largest ones."""
    terms = torch.tensor([60.0, 0.0, -1.0, 5.0, 5.0, -torch.inf, 2.0], requires_grad=True)
    rows = Positives.from_lists([[0, 1, 2], [3, 4, 5], [], [6]])
    expected = [0.3132616875, 60.0, 60.0, 5.0, 5.0, 5.6931471806, -torch.inf]
    others = other_entries_logsumexp(terms, rows)
    torch.testing.assert_close(others, torch.tensor(expected), rtol=1e-7, atol=0)
    (gradient,) = torch.autograd.grad(others[:6].sum(), terms)
    torch.testing.assert_close(gradient, torch.tensor([2.0, 0.7310586, 0.2689414, 1.5, 1.5, 0.0, 0.0]))


@needs_triton
@pytest.mark.parametrize("name", ["decoupled_softmax", "binary_cross_entropy"])
def test_the_triton_engine_agrees_in_float32(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    queries, labels = (normalize(torch.randn(count, 32, generator=generator)).requires_grad_() for count in (17, 301))
    entries = random_entries(17, 301, seed=5)
    values = [LOSSES[name](queries, labels, entries, impl=impl) for impl in ("triton", "reference")]
    torch.testing.assert_close(values[0].double(), values[1].double(), rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(value, [queries, labels]) for value in values]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5 * float(right.abs().max()))


def test_uncertain_pairs_are_no_negatives_of_themselves() -> None:
    """Two entries (0.5, 0.5) of a row compete with each other alone."""
    queries, labels = torch.eye(1, dtype=torch.float64), torch.tensor([[0.7], [0.2]], dtype=torch.float64)
    entries = Positives.from_lists([[0, 1]], [[0.5, 0.5]], [[0.5, 0.5]])
    terms = [torch.tensor(1 + 0.5 * 2.718281828459045**gap, dtype=torch.float64).log() for gap in (-0.5, 0.5)]
    torch.testing.assert_close(decoupled_softmax(queries, labels, entries, 1.0), sum(terms) / 2)
    margin = triplet_margin(queries, labels, entries, margins=(0.1, 0.1))
    assert margin.item() == pytest.approx(0.5 * (0.5 + 0.1) / 2)  # only label 1 is violated, by label 0 of push 0.5


def test_prototype_regularisation_pushes_rejected_entries() -> None:
    """As in the example of test_losses, with k = 1: the third label is among the negatives because it is rejected."""
    query = torch.tensor([[1.0]])
    texts, prototypes = torch.tensor([[0.5], [0.2], [0.1]]), torch.tensor([[0.55], [0.15], [0.05]])
    plain = prototype_regularisation(query, texts, prototypes, Positives.from_lists([[0]]), k=1)
    assert plain.item() == pytest.approx((0.05 + 0.05) / 2, rel=1e-5)
    entries = Positives.from_lists([[0, 2]], [[1.0, 0.0]], [[0.0, 2.0]])
    pushed = prototype_regularisation(query, texts, prototypes, entries, k=1)
    assert pushed.item() == pytest.approx((0.05 + (0.05 + 0.05) / 2) / 2, rel=1e-5)
    beside = Positives.from_lists([[0, 2], [2]], [[1.0, 0.0], [0.0]], [[0.0, 2.0], [2.0]])  # without a positive
    torch.testing.assert_close(prototype_regularisation(query.repeat(2, 1), texts, prototypes, beside, k=1), pushed)
    left_out = Positives.from_lists([[0, 2]], [[1.0, 0.0]], [[0.0, 0.0]])
    assert prototype_regularisation(query, texts, prototypes, left_out, k=2).item() == pytest.approx(0.05, rel=1e-5)


def test_soft_topk_of_few_labels_has_nothing_to_push_out() -> None:
    queries, labels = torch.eye(1), torch.randn(9, 1)
    entries = Positives.from_lists([[0, 1]], [[1.0, 0.0]], [[0.0, 5.0]])
    assert soft_topk(queries, labels, entries, 1.0, k=5, exclude=Positives.from_lists([list(range(2, 9))])).item() == 0


def test_pushes_move_with_their_entries() -> None:
    entries = random_entries(11, 67, seed=1)
    assert entries.push is not None
    moved = entries.to("meta")
    assert moved.push is not None
    assert (moved.push.device.type, moved.push.shape) == ("meta", entries.push.shape)
    assert moved.widest == entries.widest == int(entries.counts.max())
    assert entries.to("cpu") is entries
    for start, stop in ((0, 20), (20, 67)):
        inside, positions = LabelShard(start, 67).pairs_inside(entries, stop - start)
        assert torch.equal(inside.push, entries.push[positions])
    assert entries.joined(random_positives(11, 67, seed=2), 67).push is None
    first = Positives.from_lists([[5, 2, 5]], push=[[0.5, 1.0, 9.0]])
    assert first.push is not None
    assert first.push.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("push", "message"),
    [
        (torch.ones(1), "Positives.push must be floating, with one entry for each index"),
        (torch.ones(2, dtype=torch.int64), "Positives.push must be floating"),
        (torch.tensor([0.5, -0.5]), "Positives.push must not be negative or NaN"),
        (torch.tensor([0.5, torch.nan]), "Positives.push must not be negative or NaN"),
    ],
)
def test_refuses_malformed_pushes(push: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Positives(torch.tensor([0, 2]), torch.tensor([1, 2]), None, push)


def test_refuses_lists_of_another_length() -> None:
    with pytest.raises(InputError, match="push must have one number for each label of each row"):
        Positives.from_lists([[1, 2], [3]], push=[[1.0], [1.0]])
