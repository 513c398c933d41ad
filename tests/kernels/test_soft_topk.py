"""Soft top-k's search for thresholds: its blocks of labels, how many passes it takes, and how near each call comes."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from loss_formulas import dense_loss, solve_threshold
from random_kernel_inputs import CPU_ENGINES, needs_triton, random_positives
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from xmc.kernels.losses import Positives, soft_topk
from xmc.kernels.losses.passing import PassingCurve
from xmc.kernels.reductions import Sigmoid
from xmc.kernels.row_statistics import block_moments

TEMPERATURE, SLOPE = 0.05, 2.0


class Products(TorchDispatchMode):
    """Counts the flops of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(("aten.mm", "aten.addmm")):
            left, right = args[-2:]
            self.flops += 2 * left.shape[0] * left.shape[1] * right.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of passes is that of a device, where nothing is asked for its value."""
    monkeypatch.setattr(importlib.import_module("xmc.kernels.losses.soft_topk"), "values_are_free", lambda *_: False)


def clusters(labels: int, queries: int = 24, size: int = 40, dimension: int = 48) -> tuple[Tensor, Tensor, Positives]:
    """Labels in the order of their clusters: the best of a query stand beside each other."""
    generator = torch.Generator().manual_seed(labels)
    centres = normalize(torch.randn(-(-labels // size), dimension, generator=generator), dim=1)
    around = normalize(torch.randn(labels, dimension, generator=generator), dim=1)
    z = normalize(centres.repeat_interleave(size, 0)[:labels] + 0.75 * around, dim=1)
    own = torch.randint(0, labels, (queries,), generator=generator)
    q = normalize(z[own] + 0.3 * normalize(torch.randn(queries, dimension, generator=generator), dim=1), dim=1)
    return q, z, Positives.from_lists([sorted({int(label), int(label + size // 2) % labels}) for label in own])


def exact_thresholds(q: Tensor, z: Tensor, k: int, temperature: float = TEMPERATURE, slope: float = SLOPE) -> Tensor:
    return torch.stack([solve_threshold(row, k, slope) for row in q.double() @ z.double().T / temperature])


@pytest.mark.parametrize("impl", [*CPU_ENGINES, "reference"])
@pytest.mark.parametrize("shape", [(1, 1, 8), (5, 63, 3), (19, 64, 16), (21, 700, 33), (7, 4500, 4), (2, 16_400, 4)])
@pytest.mark.parametrize("tile_bytes", [4096, 2**26])
def test_blocks_add_up_to_all_labels(impl: str, shape: tuple[int, int, int], tile_bytes: int) -> None:
    """At a threshold and at none, with bias and excluded pairs, some of which are positives and count all the same."""
    queries, labels, dimension = shape
    generator = torch.Generator().manual_seed(labels)
    q, z = (torch.randn(count, dimension, generator=generator) for count in (queries, labels))
    bias, shift = torch.randn(labels, generator=generator), 4 * torch.randn(queries, generator=generator)
    shift[::2] = torch.nan
    positives = random_positives(queries, labels, seed=1)
    exclude = random_positives(queries, labels, seed=2)
    values, seconds = block_moments(
        Sigmoid(shift, SLOPE), q, z, positives, 0.1, label_bias=bias, exclude=exclude, tile_bytes=tile_bytes, impl=impl
    )
    counted = torch.ones(queries, labels, dtype=torch.bool)
    counted[exclude.rows, exclude.indices] = False
    counted[positives.rows, positives.indices] = True
    scores = q.double() @ z.double().T / 0.1 + bias.double()
    logarithms = logsigmoid(SLOPE * (scores + shift[:, None]))
    logarithms[::2] = SLOPE * scores[::2]
    logarithms[~counted] = -torch.inf
    for power, found in enumerate((values, seconds), 1):
        torch.testing.assert_close(found.double().logsumexp(0), (power * logarithms).logsumexp(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", CPU_ENGINES)
def test_neighbours_are_in_different_blocks(impl: str) -> None:
    """One label far above all others is seen in one block; of two that stand beside each other, each has its own."""
    z = torch.zeros(1100, 8)
    z[500:502] = 1.0
    nan = torch.full((1,), torch.nan)
    values, _ = block_moments(Sigmoid(nan), torch.ones(1, 8), z, Positives.none(1), 0.1, impl=impl)
    assert ((values[:, 0] - 80).abs() < 1e-3).sum() == 2


@pytest.mark.parametrize(
    ("dtype", "start", "most"),
    [
        (torch.bfloat16, "nothing", 2),
        (torch.bfloat16, "near", 1),
        (torch.float16, "nothing", 2),
        (torch.float16, "near", 1),
        (torch.float32, "nothing", 3),
        (torch.float32, "near", 2),
    ],
)
@pytest.mark.parametrize("looking", [False, True], ids=["as on a device", "on a CPU"])
def test_passes(dtype: torch.dtype, start: str, most: int, looking: bool, request: pytest.FixtureRequest) -> None:
    """Besides the forward pass proper; on a device always so many, on a CPU at most."""
    if not looking:
        request.getfixturevalue("as_on_a_device")
    q, z, positives = clusters(3000)
    q, z = q.to(dtype), z.to(dtype)
    threshold = torch.full((len(q),), torch.nan) if start == "nothing" else exact_thresholds(q, z, 5).float()
    with Products() as products, torch.no_grad():
        soft_topk(q, z, positives, TEMPERATURE, threshold=threshold, warm=start == "near" or None, impl="torch")
    passes = products.flops / (2 * len(q) * len(z) * q.shape[1]) - 1
    assert passes <= most if looking else passes == most


@needs_triton
@pytest.mark.parametrize(("warm", "most"), [(None, 2), (False, 2), (True, 1)])
def test_launches_on_a_device(warm: bool | None, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no values, so that passes that depended on one would fail."""
    interpreter = importlib.import_module("triton.runtime.interpreter")
    launched: list[str] = []
    monkeypatch.setattr(
        interpreter.InterpretedFunction, "run", lambda self, *_, **__: launched.append(self.fn.__name__)
    )
    q, z = (torch.randn(count, 16, device="meta", dtype=torch.bfloat16) for count in (9, 640))
    positives, threshold = random_positives(9, 640, seed=1).to("meta"), torch.zeros(9, device="meta")
    soft_topk(q, z, positives, TEMPERATURE, threshold=threshold, warm=warm, impl="triton")
    assert launched.count("_block_moments") == most
    assert launched.count("_reduce_scores") == 1


PROBLEMS = [(0.05, 2.0, 5), (0.05, 2.0, 1), (0.07, 2.0, 30), (1.0, 1.0, 5), (0.02, 2.0, 5)]
"""Temperature, slope and k."""
CLUSTERED = [(*problem, "torch") for problem in PROBLEMS] + [
    pytest.param(*problem, "triton", marks=[needs_triton, *([pytest.mark.slow] if place else [])])
    for place, problem in enumerate(PROBLEMS)
]
"""By the interpreter one of them, and the others with the slow tests."""


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("temperature", "slope", "k", "impl"), CLUSTERED)
def test_clusters_from_nothing(temperature: float, slope: float, k: int, dtype: torch.dtype, impl: str) -> None:
    """With a device's passes, where a query's best labels stand together: loss and gradient are those of the formula."""
    q, z, positives = clusters(900 if impl == "triton" else 9_000)
    q, z = (tensor.to(dtype).double().requires_grad_() for tensor in (q, z))
    expected = dense_loss("soft_topk", q @ z.T / temperature, positives, k=k, slope=slope)
    wanted = torch.autograd.grad(expected, [q, z])
    low = [tensor.detach().to(dtype).requires_grad_() for tensor in (q, z)]
    actual = soft_topk(*low, positives, temperature, k=k, slope=slope, impl=impl)
    assert actual.item() == pytest.approx(expected.item(), rel=1e-4)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-4
    for found, exact in zip(torch.autograd.grad(actual, low), wanted, strict=True):
        assert float((found - exact).norm()) < tolerance * float(exact.norm())


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize("off", [-60.0, -8.0, -1.0, 0.0, 1.0, 8.0, 60.0, math.nan])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_far_thresholds_are_right_at_the_next_call(off: float, k: int) -> None:
    """With one pass a call: after a far start a threshold is near, or NaN, and so right after one more."""
    q, z, positives = clusters(9_000)
    q, z = q.bfloat16(), z.bfloat16()
    exact = exact_thresholds(q, z, k).float()
    threshold = exact + off / SLOPE
    losses = []
    for call in range(2):
        losses.append(soft_topk(q, z, positives, TEMPERATURE, k=k, threshold=threshold, warm=True))
        error = SLOPE * (threshold - exact).abs()
        assert bool(((error < (2.0, 1e-3)[call]) | (threshold.isnan() & (call == 0))).all()), error.max()
    expected = dense_loss("soft_topk", q.double() @ z.double().T / TEMPERATURE, positives, k=k, slope=SLOPE)
    assert all(loss.isfinite() for loss in losses)
    assert losses[1].item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.usefixtures("as_on_a_device")
def test_known_and_unknown_rows_together() -> None:
    """With the passes of a call from nothing, NaN among thresholds does not matter; nor does a row where all labels pass."""
    q, z, positives = clusters(3000)
    exclude = Positives.from_lists([list(range(4, 3000)), *[[] for _ in range(len(q) - 1)]])
    exact = exact_thresholds(q, z, 5).float()
    threshold = torch.where(torch.arange(len(q)) % 2 == 0, torch.nan, exact)
    loss = soft_topk(q, z, positives, TEMPERATURE, threshold=threshold, exclude=exclude)
    torch.testing.assert_close(threshold[1:], exact[1:], rtol=1e-5, atol=1e-5)
    again = soft_topk(q, z, positives, TEMPERATURE, threshold=threshold, exclude=exclude, warm=True)
    torch.testing.assert_close(again, loss, rtol=1e-5, atol=1e-6)
    assert threshold.isfinite().all()


@needs_triton
@pytest.mark.parametrize("k", [1, 4, 30])
def test_curves_are_solved_alike_by_a_kernel(k: int) -> None:
    """Where a measurement bends the curve, and where there is none."""
    solve = importlib.import_module("xmc.kernels.triton_tiles.curves").solve
    generator = torch.Generator().manual_seed(k)
    counts, places = 1 + 3 * torch.rand(13, 37, generator=generator), 9 * torch.randn(13, 37, generator=generator)
    curve = PassingCurve(counts, places)
    at = curve.solve(k, *torch.full((3, 13), torch.nan)) + 3 * torch.randn(13, generator=generator)
    total, derivative = (part[:, 0] * 1.3 for part in curve.passing(at[:, None]))
    at[::3] = torch.nan
    expected = curve.solve(k, at, total, derivative)
    torch.testing.assert_close(solve(curve, k, at, total, derivative), expected, rtol=1e-4, atol=1e-4)
