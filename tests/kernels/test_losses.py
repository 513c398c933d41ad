"""Losses against their definitions written out densely in float64, and against hand-worked examples."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loss_formulas import dense_loss, solve_threshold
from random_kernel_inputs import CPU_ENGINES, random_positives
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from xmc.errors import InputError
from xmc.kernels import losses
from xmc.kernels.losses import (
    Positives,
    binary_cross_entropy,
    decoupled_softmax,
    multi_label_cluster_discrimination,
    prototype_regularisation,
    soft_topk,
    softmax,
    triplet_margin,
)

Loss = Callable[..., Tensor]


STREAMED: dict[str, Loss] = {
    "softmax": softmax,
    "decoupled_softmax": decoupled_softmax,
    "soft_topk": soft_topk,
    "binary_cross_entropy": binary_cross_entropy,
    "multi_label_cluster_discrimination": multi_label_cluster_discrimination,
}


def world(seed: int = 0, weighted: bool = False) -> tuple[Tensor, Tensor, Tensor, Positives]:
    torch.manual_seed(seed)
    q = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    z = torch.randn(67, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(67, dtype=torch.float64, requires_grad=True)
    positives = random_positives(11, 67, seed=4)
    if weighted:
        weights = torch.rand(len(positives.indices), dtype=torch.float64)
        weights[: int(positives.counts[1])] = 0.0  # a row whose weights are all zero does not count
        positives = Positives(positives.indptr, positives.indices, weights)
    return q, z, bias, positives


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("excluding", [False, True])
@pytest.mark.parametrize("tile_bytes", [300, 2**26])
def test_equals_definition(name: str, weighted: bool, excluding: bool, tile_bytes: int) -> None:
    q, z, bias, positives = world(weighted=weighted)
    exclude = random_positives(11, 67, seed=5, full=False) if excluding else None
    expected = dense_loss(name, q @ z.T / 0.5 + bias, positives, exclude)
    options: dict[str, Any] = {"label_bias": bias, "exclude": exclude, "tile_bytes": tile_bytes}
    actual = STREAMED[name](q, z, positives, 0.5, **options)
    torch.testing.assert_close(actual, expected)
    inputs = [q, z, bias]
    for left, right in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("name", STREAMED)
def test_gradcheck_with_learned_temperature(name: str) -> None:
    torch.manual_seed(1)
    q = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    positives = Positives.from_lists([[0, 3], [], [8], [1, 2, 4]])
    function = STREAMED[name]
    assert torch.autograd.gradcheck(
        lambda *t: function(t[0], t[1], positives, t[2], tile_bytes=64), (q, z, temperature)
    )


def test_hand_worked_examples() -> None:
    """Scores 2, 1, 0 with labels 0 and 1 positive: N = 0."""
    q, z = torch.tensor([[1.0]]), torch.tensor([[2.0], [1.0], [0.0]])
    positives = Positives.from_lists([[0, 1]])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert decoupled_softmax(q, z, positives, 1.0).item() == pytest.approx(expected, rel=1e-6)
    partition = math.log(math.exp(2) + math.exp(1) + 1)
    assert softmax(q, z, positives, 1.0).item() == pytest.approx(partition - 1.5, rel=1e-6)
    clusters = math.log(2) + math.log(1 + math.exp(-2) + math.exp(-1))
    assert multi_label_cluster_discrimination(q, z, positives, 1.0).item() == pytest.approx(clusters, rel=1e-6)
    entropy = math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log(2)
    assert binary_cross_entropy(q, z, positives, 1.0).item() == pytest.approx(entropy, rel=1e-6)


def test_soft_topk_of_equal_scores() -> None:
    """L equal scores each pass with probability k / L."""
    q, z = torch.ones(1, 2, dtype=torch.float64), torch.ones(1000, 2, dtype=torch.float64)
    loss = soft_topk(q, z, Positives.from_lists([[3]]), 1.0, k=5)
    assert loss.item() == pytest.approx(-math.log(5 / 1000), rel=1e-6)


@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_soft_topk_of_few_labels(impl: str) -> None:
    """Where no more than k labels are left, all pass; where none is, the row does not count."""
    torch.manual_seed(9)
    q, z = torch.randn(3, 4, requires_grad=True), torch.randn(20, 4, requires_grad=True)
    positives = Positives.from_lists([[0], [], [4]])
    exclude = Positives.from_lists([list(range(3, 20)), list(range(20)), []])
    loss = soft_topk(q, z, positives, 1.0, k=5, exclude=exclude, impl=impl)
    alone = soft_topk(q[2:], z, Positives.from_lists([[4]]), 1.0, k=5, impl=impl)
    torch.testing.assert_close(loss, alone / 2)
    loss.backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


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


def test_propensities_make_the_loss_unbiased() -> None:
    """Over random marks, each relevant label marked with its propensity, the loss averages to that of complete marks."""
    torch.manual_seed(4)
    q, z = torch.randn(1, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    propensities = torch.tensor([0.3, 0.5, 0.9, 0.4, 0.8, 0.6], dtype=torch.float64)
    relevant = [0, 2, 3]
    complete = binary_cross_entropy(q, z, Positives.from_lists([relevant]), 1.0)
    expected = 0.0
    nothing_marked = softplus(q @ z.T).sum().item()  # a row without positives does not count; its loss is this
    for marks in range(8):
        marked = [label for bit, label in enumerate(relevant) if marks >> bit & 1]
        probability = math.prod(
            float(propensities[label]) if label in marked else 1 - float(propensities[label]) for label in relevant
        )
        one = Positives.from_lists([marked])
        loss = binary_cross_entropy(q, z, one, 1.0, propensities=propensities).item() if marked else nothing_marked
        expected += probability * loss
    assert complete.item() == pytest.approx(expected)


@pytest.mark.parametrize("weight", [1.0, 0.2])
@pytest.mark.parametrize("propensity", [0.9, 0.25, 0.05])
def test_the_bound_of_the_unbiased_loss_bounds_the_unbiased_0_1_loss(propensity: float, weight: float) -> None:
    """By ℓ / log 2, up to a constant; it grows without end on neither side, and is the unbiased loss where that is bounded."""
    target = weight / propensity
    scores = torch.linspace(-9, 9, 41, dtype=torch.float64)
    unbiased = target * (scores < 0).double() + (1 - target) * (scores >= 0).double()
    one = Positives.from_lists([[0]], [[weight]])
    query, given = torch.ones(1, 1, dtype=torch.float64), torch.full((1,), propensity, dtype=torch.float64)

    def loss(bound: bool) -> Tensor:
        labels = (score[None, None] for score in scores)
        return torch.stack(
            [binary_cross_entropy(query, label, one, 1.0, propensities=given, bound=bound) for label in labels]
        )

    values, plain = loss(True), loss(False)
    assert bool((values / math.log(2) + min(0, 1 - target) >= unbiased - 1e-12).all())
    assert bool((values >= 0).all())
    assert bool((values.diff().diff() > 0).all())
    if target <= 1:
        torch.testing.assert_close(values, plain)
    else:
        torch.testing.assert_close(values, (2 * target - 1) * softplus(-scores))
        assert float(plain.min()) < 8 * (1 - target)


@pytest.mark.parametrize("bound", [False, True])
def test_propensities_leave_entries_with_a_push_as_they_are(bound: bool) -> None:
    """They correct what is a positive and no more."""
    q, z, bias, _ = world()
    lists, pull, push = [[3, 9, 11]] * 11, [[1.0, 0.7, 0.0]] * 11, [[0.0, 0.3, 2.0]] * 11
    propensities = torch.linspace(0.2, 1, 67, dtype=torch.float64)
    target = 1 / float(propensities[3])
    scores = q @ z.T / 0.5 + bias
    total = softplus(scores, threshold=40)
    positive = target * softplus(-scores[:, 3]) + (1 - target) * softplus(scores[:, 3])
    if bound:
        positive = (2 * target - 1) * softplus(-scores[:, 3])
    uncertain = 0.7 * softplus(-scores[:, 9]) + 0.3 * softplus(scores[:, 9])
    others = total.sum(1) - total[:, [3, 9, 11]].sum(1)
    expected = (others + positive + uncertain + 2 * total[:, 11]).mean()
    entries = Positives.from_lists(lists, pull, push)
    actual = binary_cross_entropy(q, z, entries, 0.5, label_bias=bias, propensities=propensities, bound=bound)
    torch.testing.assert_close(actual, expected)
    inputs = [q, z, bias]
    for left, right in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(left, right)


FAMILIES = {
    "flat": lambda: torch.randn(8, 40_000) * 0.3,
    "normal": lambda: torch.randn(8, 40_000),
    "cosines at 0.05": lambda: 20 * normalize(torch.randn(8, 64), dim=1) @ normalize(torch.randn(40_000, 64), dim=1).T,
    "peaked": lambda: torch.cat([2 * torch.randn(8, 40_000), 15 + torch.randn(8, 3)], 1),
    "heavy": lambda: torch.randn(8, 40_000) * 8,
    "steps": lambda: torch.randint(0, 3, (8, 40_000)).float() * 3,
    "few": lambda: torch.randn(8, 12) * 3,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 5, 11])
def test_threshold_is_exact_after_at_most_four_passes(family: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nothing, from a good start and from a bad one. A pass is a call of the row statistics, or of blocks of them."""
    module = importlib.import_module("xmc.kernels.losses.soft_topk")  # the package names the function by it

    passes: list[str] = []
    for name in ("row_statistics", "block_moments"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _f=original, _n=name, **o: (passes.append(_n), _f(*a, **o))[1])
    torch.manual_seed(6)
    scores = FAMILIES[family]()
    exact = torch.stack([solve_threshold(row.double(), k, 2.0) for row in scores])
    q, z = torch.eye(8), scores.T.contiguous()  # scores as they are
    positives = Positives.from_lists([[0]] * 8)
    most = {"from nothing": 4, "near": 3, "far": 4, "at it": 2}
    for start, threshold in {
        "from nothing": torch.full((8,), torch.nan),
        "near": exact.float() + 0.05 * torch.randn(8),
        "far": exact.float() + 5 * torch.randn(8),
        "at it": exact.float().clone(),
    }.items():
        passes.clear()
        module.soft_topk(q, z, positives, 1.0, k=k, threshold=threshold)
        assert len(passes) <= most[start], start
        error = float((threshold - exact).abs().max())
        assert error < 1e-4 * max(1.0, float(exact.abs().max())), f"{start}: {error}"


@pytest.mark.parametrize("impl", [*CPU_ENGINES, "reference"])
@pytest.mark.parametrize("margins", [(0.1, 0.3), (0.3, 0.3), (0.0, 0.0)])
def test_triplet_margin(impl: str, margins: tuple[float, float]) -> None:
    torch.manual_seed(7)
    dtype = torch.float32 if impl == "triton" else torch.float64
    q = normalize(torch.randn(9, 6, dtype=dtype), dim=1).requires_grad_()
    z = normalize(torch.randn(40, 6, dtype=dtype), dim=1).requires_grad_()
    positives = random_positives(9, 40, seed=3)
    expected = dense_loss("triplet_margin", q @ z.T, positives, k=4, margins=margins)
    actual = triplet_margin(q, z, positives, k=4, margins=margins, impl=impl)
    torch.testing.assert_close(actual, expected)
    for left, right in zip(torch.autograd.grad(actual, [q, z]), torch.autograd.grad(expected, [q, z]), strict=True):
        torch.testing.assert_close(left, right)


def test_triplet_margin_by_hand() -> None:
    """One positive at 0.5, negatives at 0.45, 0.3 and -1: only the first is nearer than its margin of 0.1."""
    q, z = torch.tensor([[1.0]]), torch.tensor([[0.5], [0.45], [0.3], [-1.0]])
    assert triplet_margin(q, z, Positives.from_lists([[0]])).item() == pytest.approx(0.45 - 0.5 + 0.1, rel=1e-5)
    excluded = Positives.from_lists([[1]])
    assert triplet_margin(q, z, Positives.from_lists([[0]]), exclude=excluded).item() == 0.0


def test_prototype_regularisation_by_hand() -> None:
    """Texts score 0.5 (positive), 0.2, 0.1; prototypes 0.55, 0.15, 0.3: terms 0.05; 0.05 and 0.3."""
    q = torch.tensor([[1.0]])
    z = torch.tensor([[0.5], [0.2], [0.1]], requires_grad=True)
    c = torch.tensor([[0.55], [0.15], [0.3]], requires_grad=True)
    loss = prototype_regularisation(q, z, c, Positives.from_lists([[0]]))
    assert loss.item() == pytest.approx((0.05 + (0.05 + 0.3) / 2) / 2, rel=1e-5)
    loss.backward()
    assert z.grad is not None
    assert c.grad is not None
    torch.testing.assert_close(c.grad[:, 0], torch.tensor([-0.5, 0.25, 0.25]))
    torch.testing.assert_close(z.grad, -c.grad)
    good = prototype_regularisation(q, torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]]), Positives.from_lists([[0]]))
    assert good.item() == 0.0


@pytest.mark.parametrize("name", ["triplet_margin", "prototype_regularisation"])
def test_margin_losses_gradcheck(name: str) -> None:
    torch.manual_seed(8)
    q = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    c = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    positives = Positives.from_lists([[0, 3], [], [8], [1, 2, 4]])
    if name == "triplet_margin":
        # The margin is fixed: what is constant to the gradient by intent is not constant to finite differences.
        assert torch.autograd.gradcheck(lambda a, b: triplet_margin(a, b, positives, k=3, margins=(0.3, 0.3)), (q, z))
    else:
        assert torch.autograd.gradcheck(lambda *t: prototype_regularisation(*t, positives, k=3), (q, z, c))


MODULES: dict[str, tuple[nn.Module, Loss]] = {
    "SoftmaxLoss": (losses.SoftmaxLoss(0.2), softmax),
    "DecoupledSoftmaxLoss": (losses.DecoupledSoftmaxLoss(0.2), decoupled_softmax),
    "MultiLabelClusterDiscriminationLoss": (
        losses.MultiLabelClusterDiscriminationLoss(0.2),
        multi_label_cluster_discrimination,
    ),
    "BinaryCrossEntropyLoss": (losses.BinaryCrossEntropyLoss(0.2), binary_cross_entropy),
    "SoftTopKLoss": (losses.SoftTopKLoss(0.2), soft_topk),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_compute_their_functions(name: str) -> None:
    module, function = MODULES[name]
    q, z, bias, positives = world()
    exclude = random_positives(11, 67, seed=5, full=False)
    actual = module(q, z, positives, label_bias=bias, exclude=exclude)
    torch.testing.assert_close(actual, function(q, z, positives, 0.2, label_bias=bias, exclude=exclude))
    assert "temperature=0.2" in repr(module)
    with pytest.raises(TypeError, match="tile_size"):
        module(q, z, positives, tile_size=3)


def test_other_modules() -> None:
    q, z, _, positives = world()
    torch.testing.assert_close(
        losses.TripletMarginLoss(k=3, margins=(0.2, 0.4))(q, z, positives),
        triplet_margin(q, z, positives, k=3, margins=(0.2, 0.4)),
    )
    torch.testing.assert_close(
        losses.PrototypeRegularisationLoss(margin=0.2, k=3)(q, z, 2 * z, positives),
        prototype_regularisation(q, z, 2 * z, positives, margin=0.2, k=3),
    )
    threshold = torch.full((11,), torch.nan, dtype=torch.float64)
    losses.SoftTopKLoss(0.2, k=3)(q, z, positives, threshold=threshold)
    assert threshold.isfinite().all()


def test_a_module_learns_its_temperature() -> None:
    q, z, _, positives = world()
    module = losses.DecoupledSoftmaxLoss(0.5, learn_temperature=True)
    assert [name for name, _ in module.named_parameters()] == ["log_temperature"]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    before = module(q, z, positives)
    for _ in range(20):
        optimizer.zero_grad()
        module(q, z, positives).backward()
        optimizer.step()
    assert module(q, z, positives) < 0.9 * before


def test_refuses_what_does_not_fit() -> None:
    q, z, one = torch.randn(2, 3), torch.randn(4, 3), Positives.from_lists([[0], [1]])
    for k in (0, 4):
        with pytest.raises(InputError, match=rf"less than the 4 labels, but is {k}"):
            soft_topk(q, z, one, k=k)
    for temperature in (0.0, torch.ones(2)):
        with pytest.raises(InputError, match="temperature must be one positive number"):
            soft_topk(q, z, one, temperature, k=1)
    with pytest.raises(InputError, match="slope must be positive"):
        soft_topk(q, z, one, k=1, slope=0.0)
    with pytest.raises(InputError, match=r"threshold must have shape \(2,\), not \(3,\)"):
        soft_topk(q, z, one, k=1, threshold=torch.zeros(3))
    with pytest.raises(InputError, match=r"propensities must have shape \(4,\)"):
        binary_cross_entropy(q, z, one, propensities=torch.ones(3))
    with pytest.raises(InputError, match="bound needs propensities"):
        binary_cross_entropy(q, z, one, bound=True)
    with pytest.raises(InputError, match=r"propensities must be in \(0, 1\]"):
        binary_cross_entropy(q, z, one, propensities=torch.tensor([0.5, 0.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="0 <= least <= most"):
        triplet_margin(q, z, one, margins=(0.3, 0.1))
    with pytest.raises(InputError, match="k must be at least 1"):
        triplet_margin(q, z, one, k=0)
    with pytest.raises(InputError, match="2 rows for 3 queries"):
        triplet_margin(torch.randn(3, 3), z, one)
    with pytest.raises(InputError, match="must have the shape of labels"):
        prototype_regularisation(q, z, z[:3], one)
    with pytest.raises(InputError, match="hold NaN"):
        triplet_margin(q, z * torch.nan, one)
    with pytest.raises(InputError, match="temperature must be one positive number"):
        losses.SoftmaxLoss(0.0)
    with pytest.raises(
        InputError, match="SoftTopKLoss has no setting 'slopes'; it has k, slope, threshold, warm, label_bias"
    ):
        losses.SoftTopKLoss(0.1, slopes=2.0)
