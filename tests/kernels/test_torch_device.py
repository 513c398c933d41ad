"""The torch engine of a GPU, run on a CPU: its products are computed otherwise there, all else is the same."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from random_kernel_inputs import Problem, assert_no_worse, dense, evaluate, problem, random_positives
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from xmc.kernels import row_statistics, torch_device
from xmc.kernels.losses import LOSSES, Positives
from xmc.kernels.products import add_product, product
from xmc.kernels.reductions import REDUCTIONS

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch engine is that of a GPU."""

    def chosen(backend: str, queries: Tensor) -> ModuleType:
        assert backend == "torch"
        return torch_device

    monkeypatch.setattr(row_statistics, "_engine", chosen)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 8), (3, 7, 16), (41, 401, 96)])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_error_is_no_larger_than_that_of_plain_torch(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of every engine; with one tile, many, and queries cut into blocks too."""
    one = problem(shape, seed=3).to(dtype)
    truth = evaluate(name, one.to(torch.float64), impl="reference")
    plain = dense(name, one) if dtype != torch.float64 else [value.float().double() for value in truth]
    for tile_bytes, height in ((2**26, 8192), (2**13, 8192), (2**12, 16)):
        monkeypatch.setattr(torch_device, "HEIGHT", height)
        assert_no_worse(evaluate(name, one, impl="torch", tile_bytes=tile_bytes), plain, truth)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_float64_is_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_device, "HEIGHT", 5)
    one = problem((13, 67, 9), seed=4)
    for actual, expected in zip(
        evaluate(name, one, impl="torch", tile_bytes=2**10), evaluate(name, one, impl="reference"), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"soft_topk", "triplet_margin"}))
def test_a_pair_that_is_excluded_and_positive_stays_a_positive(name: str, dtype: torch.dtype) -> None:
    """It is listed twice among the pairs of a tile, and counts once."""
    one = problem((11, 67, 5), seed=2).to(dtype)
    queries, labels = one.tensors[:2]
    positives = random_positives(11, 67, seed=1, full=False)
    values = [
        LOSSES[name](queries, labels, positives, 0.5, exclude=exclude, impl="torch", tile_bytes=1000)
        for exclude in (positives, None)
    ]
    assert torch.equal(values[0], values[1])
    gradients = [torch.autograd.grad(value, [queries, labels]) for value in values]
    for left, right in zip(*gradients, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e5])
def test_float16_keeps_its_range(size: float) -> None:
    """Softmax shares down to 1e-8, and incoming gradients of any size, are outside of what float16 holds by itself.

    Each entry of a negative's gradient is one product of a share and an entry of the query, rounded a few times to float16.
    """
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, 24, generator=generator).half()
    labels = (torch.randn(2001, 24, generator=generator) * 2 / queries.float().norm()).half()
    gradients = []
    for impl, dtype in (("torch", torch.float16), ("reference", torch.float64)):
        leaf = labels.to(dtype).requires_grad_()
        loss = LOSSES["decoupled_softmax"](queries.to(dtype), leaf, Positives.from_lists([[0]]), 1.0, impl=impl)
        gradients.append(torch.autograd.grad(loss * size, leaf)[0][1:].double())
    error, exact = (gradients[0] - gradients[1]).abs(), gradients[1].abs()
    assert exact.max() < 65504
    assert (error <= exact * 2**-9 + 2**-24).all(), "by more than the smallest number of float16"


@pytest.mark.parametrize("needs", [(True, False), (False, True)])
def test_only_what_is_asked_is_computed(needs: tuple[bool, bool]) -> None:
    one = problem((5, 31, 4), seed=8).to(torch.float32)
    queries, labels = (t.detach().requires_grad_(need) for t, need in zip(one.tensors, needs, strict=False))
    loss = LOSSES["decoupled_softmax"](queries, labels, one.positives, impl="torch")
    loss.backward()
    assert [queries.grad is not None, labels.grad is not None] == list(needs)


@pytest.mark.parametrize("shape", [(0, 7), (3, 0), (0, 0)])
def test_nothing_to_do(shape: tuple[int, int]) -> None:
    queries, labels = (torch.randn(count, 4, requires_grad=True) for count in shape)
    one = Problem(
        [queries, labels, torch.tensor(1.0), torch.zeros(shape[1]), torch.zeros(shape[0])],
        Positives.none(shape[0]),
        None,
    )
    for actual, expected in zip(evaluate_sums(one, "torch"), evaluate_sums(one, "reference"), strict=True):
        assert torch.equal(actual.double(), expected.double())


def evaluate_sums(one: Problem, impl: str) -> list[Tensor]:
    value, _, positive = row_statistics.row_statistics(
        REDUCTIONS["softplus"](), *one.tensors[:2], one.positives, 1.0, impl=impl
    )
    return [value, positive, *torch.autograd.grad(value.sum(), one.tensors[:2])]


class PassedOver(TorchDispatchMode):
    """Counts the bytes that operations other than products read and write of tensors of at least `least` elements."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.bytes = least, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        writes = func._schema.is_mutable
        name = func.overloadpacket.__name__
        # Single entries, and what only makes or names memory.
        if name not in ("addmm", "index", "index_put_") and (
            writes or not any(r.alias_info for r in func._schema.returns)
        ):
            given = (args, {option: value for option, value in (kwargs or {}).items() if option != "out"})
            for one in tree_leaves((given, None if name in ("new_empty", "empty") else result)):
                if isinstance(one, Tensor) and one.numel() >= self.least:
                    self.bytes += one.numel() * one.element_size()
        return result


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 24 + 16), (torch.bfloat16, 24 + 14)])
def test_a_softmax_takes_few_passes_over_the_scores(
    dtype: torch.dtype, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward: maximum, difference, exponential, sum; backward: difference, and the exponential in the inputs' dtype.

    So many bytes a score; on a GPU they take what the products leave of three times the floor.
    """
    monkeypatch.setattr(torch_device, "product", uncounted(torch_device.product))
    monkeypatch.setattr(torch_device, "add_product", uncounted(torch_device.add_product))
    generator = torch.Generator().manual_seed(0)
    queries, labels = (torch.randn(count, 8, generator=generator).to(dtype).requires_grad_() for count in (256, 4096))
    positives = random_positives(256, 4096, seed=1)
    with PassedOver(256 * 1024) as passed:
        LOSSES["decoupled_softmax"](queries, labels, positives, 1.0, impl="torch", tile_bytes=256 * 1024 * 4).backward()
    assert passed.bytes == most * 256 * 4096


def uncounted(function: Any) -> Any:
    """A function whose operations no mode sees."""

    def call(*args: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **options)

    return call


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_sum_up_in_float32(dtype: torch.dtype, device: str) -> None:
    """The result is that of the rounded operands to float32's rounding of 300 terms; transposed operands too."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(17, 300, generator=generator).to(device, dtype) for _ in range(2))
    exact = left.double() @ right.double().T
    total = torch.ones_like(exact).to(torch.float64 if dtype == torch.float64 else torch.float32)
    options: dict[str, Any] = {"rtol": 0, "atol": 300 * torch.finfo(total.dtype).eps * 4}
    assert product(left, right.T).dtype == total.dtype
    torch.testing.assert_close(product(left, right.T).double(), exact, **options)
    torch.testing.assert_close(product(right, left.T, scale=0.5, out=total.clone()).double(), exact.T / 2, **options)
    torch.testing.assert_close(add_product(total.clone(), left, right.T).double(), exact + 1, **options)
    small = left[:, :17].contiguous()
    torch.testing.assert_close(product(small.T, small).double(), small.double().T @ small.double(), **options)
    torch.testing.assert_close(product(left[:, :0], right.T[:0]), torch.zeros_like(total), rtol=0, atol=0)
