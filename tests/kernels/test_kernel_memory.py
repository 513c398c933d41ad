"""No operation on the way, forward or backward, ever makes a tensor of the size of all scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from random_kernel_inputs import CPU_ENGINES, needs_triton, random_positives
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xmc.kernels.losses import LOSSES
from xmc.kernels.topk import topk_inner_product

QUERIES, DIMENSION = 64, 16
LABELS = {"torch": 40_009, "triton": 4_099}
"""For the torch engine more than fit the 8 MiB tile of its top-k; the interpreter takes its time."""

SEARCHED = {"torch": 2**21, "triton": QUERIES * -(-LABELS["triton"] // 64) * 64 // 4}
"""Largest tensor of a top-k: a tile of 8 MiB of scores; or of whole tiles of 64 labels a maximum for four labels."""

MOMENTS = 2 * QUERIES * (1024 + 64)
"""Two numbers for each query and block of labels, of which so few have some 1,024, and those of a tile that is not full."""


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.operation = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            # The interpreter's copies of its memory are bytes.
            if isinstance(one, torch.Tensor) and one.dtype != torch.uint8 and one.numel() > self.elements:
                self.elements, self.operation = one.numel(), str(func)
        return result


QUICK = ("decoupled_softmax",)
"""What stands for the others by the interpreter, which takes seconds for each."""

MARKS = {name: [needs_triton] if name in QUICK else [needs_triton, pytest.mark.slow] for name in LOSSES}
CASES = [
    *(pytest.param(name, "torch", id=f"{name}-torch") for name in LOSSES),
    *(pytest.param(name, "triton", id=f"{name}-triton", marks=MARKS[name]) for name in LOSSES),
]


@pytest.fixture
def tf32() -> Iterator[None]:
    """Scores of float32 come from the product kernel, and are in no tile."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("name", "impl"), CASES)
@pytest.mark.usefixtures("tf32")
def test_losses_never_hold_the_scores(name: str, impl: str) -> None:
    """The labels' gradient and one tile are the largest there is."""
    count = LABELS[impl]
    generator = torch.Generator().manual_seed(0)
    queries = normalize(torch.randn(QUERIES, DIMENSION, generator=generator), dim=1).requires_grad_()
    labels = normalize(torch.randn(count, DIMENSION, generator=generator), dim=1).requires_grad_()
    positives = random_positives(QUERIES, count, seed=1)
    with Largest() as largest:
        LOSSES[name](queries, labels, positives, impl=impl, tile_bytes=2**16).backward()
    searched = {"triplet_margin": SEARCHED[impl], "soft_topk": MOMENTS}
    allowed = max(count * DIMENSION, searched.get(name, 0))
    assert largest.elements <= allowed, largest.operation
    assert allowed < 0.85 * QUERIES * count


@pytest.mark.parametrize("impl", CPU_ENGINES)
@pytest.mark.parametrize("k", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_topk_never_holds_the_scores(impl: str, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(QUERIES, DIMENSION, generator=generator)
    labels = torch.randn(LABELS[impl], DIMENSION, generator=generator)
    with Largest() as largest:
        topk_inner_product(queries, labels, k, impl=impl, tile_bytes=2**16)
    # The torch engine takes 2,048 labels at a time. Of k labels and three groups more, keys of at most eight labels.
    allowed = max(SEARCHED["triton"], QUERIES * (k + 3) * 8) if impl == "triton" else QUERIES * 2048
    assert largest.elements <= allowed, largest.operation


def test_the_dense_formula_is_noticed() -> None:
    """The check sees what it looks for."""
    queries, labels = torch.randn(QUERIES, DIMENSION), torch.randn(4_099, DIMENSION)
    with Largest() as largest:
        (queries @ labels.T).logsumexp(1)
    assert largest.elements == QUERIES * 4_099
