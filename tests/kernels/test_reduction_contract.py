"""What holds for every registered reduction: both engines agree with its float64 reference, forward, combined and backward.

A new reduction needs nothing here; its arguments `shift` and `slope` are those of the shared problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature

import pytest
import torch
from families import members_restored
from random_kernel_inputs import (
    ENGINES,
    SHAPES,
    assert_no_worse,
    dense,
    evaluate,
    problem,
    rounding_noise,
    statistics_of,
)
from torch import Tensor

from xmc.errors import ConfigError
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import REDUCTIONS, Reduction, Sums
from xmc.kernels.row_statistics import row_statistics

Engine = tuple[str, str]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("shape", [*SHAPES, (5, 1, 4), (13, 129, 9)])
@pytest.mark.parametrize("tile_bytes", [400, 4096, 2**26])
def test_equals_reference_in_float64(name: str, shape: tuple[int, int, int], tile_bytes: int) -> None:
    if shape[0] * shape[1] > 100_000 and tile_bytes < 4096:
        tile_bytes = 60_000
    one = problem(shape, exclude=tile_bytes != 4096)
    expected = evaluate(name, one, impl="reference")
    for left, right in zip(evaluate(name, one, impl="torch", tile_bytes=tile_bytes), expected, strict=True):
        torch.testing.assert_close(left, right.reshape(left.shape), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("shape", [*SHAPES[:-1], pytest.param(SHAPES[-1], marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_no_larger_than_that_of_plain_torch(
    engine: Engine, name: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """Each value and gradient is as near to float64 as dense torch code in the same dtype, plus a small term."""
    impl, device = engine
    if engine == ("triton", "cpu") and shape[1] > 1000:
        shape = (16, 301, 33)  # the interpreter takes its time
    one = problem(shape, seed=3).to(dtype, device)
    truth = evaluate(name, one.to(torch.float64, device), impl="reference")
    plain, noise = dense(name, one), rounding_noise(name, one, dtype)
    for tile_bytes in (2**13 if shape[1] < 1000 else 2**16, 2**26):
        assert_no_worse(evaluate(name, one, impl=impl, tile_bytes=tile_bytes), plain, truth, noise)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradcheck(name: str) -> None:
    one = problem((5, 17, 3), seed=1)
    keep = torch.ones(5, dtype=torch.bool)
    keep[-1] = name != "log_sum_exp"  # all labels positive: N is -inf there

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        one.tensors = list(tensors)
        value, _, positive = statistics_of(name, one, tile_bytes=200, impl="torch")
        return value[keep], positive

    shift = one.tensors[4] if "shift" in signature(REDUCTIONS[name]).parameters else one.tensors[4].detach()
    assert torch.autograd.gradcheck(function, (*one.tensors[:4], shift))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("size", [1e4, 1e-3])
def test_extreme_scores_stay_exact(engine: Engine, name: str, size: float) -> None:
    """Scores in the ten thousands neither overflow nor turn into NaN."""
    impl, device = engine
    one = problem((13, 129, 9), seed=2, size=size).to(torch.float32, device)
    expected = evaluate(name, one.to(torch.float64, device), impl="reference")
    for tile_bytes in (512, 2**26):
        for left, right in zip(evaluate(name, one, impl=impl, tile_bytes=tile_bytes), expected, strict=True):
            assert not left.isnan().any()
            scale = right[right.isfinite()].abs().max().item() if right.isfinite().any() else 1.0
            torch.testing.assert_close(
                left.double(), right.reshape(left.shape), rtol=5e-3, atol=1e-3 * max(scale, 1e-3)
            )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("frozen", ["queries", "labels", "both"])
def test_frozen_inputs(engine: Engine, name: str, frozen: str) -> None:
    """What needs no gradient gets none, and the others' gradients stay."""
    impl, device = engine
    for tile_bytes in (1024, 2**26):
        one = problem((13, 129, 9), seed=8).to(torch.float32, device)
        expected = evaluate(name, one, impl=impl, tile_bytes=tile_bytes)[3:5]
        queries, labels, temperature, bias, shift = (t.detach() for t in one.tensors)
        queries.requires_grad_(frozen == "labels")
        labels.requires_grad_(frozen == "queries")
        one.tensors = [queries, labels, temperature, bias, shift]
        value, _, positive = statistics_of(name, one, tile_bytes=tile_bytes, impl=impl)
        assert value.requires_grad == (frozen != "both")
        if frozen == "both":
            continue
        generator = torch.Generator().manual_seed(7)
        weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in (value, value, positive)]
        finite = value.isfinite()
        total = (value.double() * weights[0].to(device))[finite].sum() + (positive * weights[2].to(device)).sum()
        total.backward()
        for tensor, gradient in zip((queries, labels), expected, strict=True):
            if tensor.requires_grad:
                torch.testing.assert_close(tensor.grad, gradient)
            else:
                assert tensor.grad is None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (0, 0, 3)])
def test_nothing_to_score(engine: Engine, name: str, shape: tuple[int, int, int]) -> None:
    impl, device = engine
    one = problem(shape).to(torch.float32, device)
    found = evaluate(name, one, impl=impl)
    for left, right in zip(found, evaluate(name, one, impl="reference"), strict=True):
        torch.testing.assert_close(left.double(), right.double())


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("cuts", [[67], [1, 30, 36], [0, 67]])
def test_parts_of_the_labels_combine(name: str, cuts: list[int]) -> None:
    """The statistic of all labels from those of parts, an empty part too."""
    whole = problem((11, 67, 5), seed=4)
    reduction = whole.reduction(name)
    scores = (whole.tensors[0] @ whole.tensors[1].T).detach().requires_grad_()
    counted = torch.rand(11, 67, generator=torch.Generator().manual_seed(1)) < 0.8
    counted[2] = False
    parts = [
        reduction.reference(part, kept)
        for part, kept in zip(scores.split(cuts, 1), counted.split(cuts, 1), strict=True)
    ]
    values, derivatives = (torch.stack(numbers).detach() for numbers in zip(*parts, strict=True))
    combined = reduction.combine(values.clone(), None if reduction.shift is None else derivatives.clone())
    value, derivative = reduction.reference(scores, counted)
    torch.testing.assert_close(combined.value, value.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(combined.derivative, derivative, rtol=1e-12, atol=1e-12)
    (weights,) = torch.autograd.grad(value[value.isfinite()].sum(), scores, retain_graph=True)
    # The gradient of the whole in a score is that of its part, times the gradient of the combination.
    through_parts = torch.zeros_like(scores)
    for part_value, _ in parts:
        factor = reduction.combine_gradient(part_value.detach(), combined.value)
        finite = part_value.isfinite()
        if finite.any():
            through_parts += torch.autograd.grad((part_value * factor)[finite].sum(), scores, retain_graph=True)[0]
    torch.testing.assert_close(through_parts, weights, rtol=1e-10, atol=1e-12)


class SumOfSquares(Reduction):
    """Σ_j s_ij² over all labels: a reduction from outside of the package, for torch tiles alone."""

    takes_positives = True

    def add(self, sums: Sums, block: slice, scores: Tensor) -> None:
        scores.masked_fill_(scores == -torch.inf, 0.0)
        sums.value[block] += scores.square().sum(1)
        scores.mul_(2)

    def gradient(self, value: Tensor, block: slice, scores: Tensor) -> Tensor:
        return scores.masked_fill_(scores == -torch.inf, 0.0).mul_(2)

    def reference(self, scores: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        return scores.square().mul(counted).sum(1), scores.detach().new_zeros(len(scores))


@pytest.fixture
def registered() -> Iterator[str]:
    with members_restored():
        REDUCTIONS.register("sum_of_squares", SumOfSquares)
        yield "sum_of_squares"


@pytest.mark.parametrize("tile_bytes", [400, 2**26])
def test_a_reduction_from_outside(registered: str, tile_bytes: int) -> None:
    test_equals_reference_in_float64(registered, (13, 129, 9), tile_bytes)
    test_parts_of_the_labels_combine(registered, [1, 30, 36])
    queries, labels = torch.randn(2, 3), torch.randn(4, 3)
    with pytest.raises(ConfigError, match="'triton', but this reduction has no device functions; choose 'torch'"):
        row_statistics(SumOfSquares(), queries, labels, Positives.none(2), 1.0, impl="triton")
