"""No operation on the way, forward or backward, ever makes a tensor of the size of all scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_problems import random_positives
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xmc.kernels import losses
from xmc.kernels.topk import topk_inner_product

QUERIES, LABELS, DIMENSION = 64, 4099, 16


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.operation = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor) and one.untyped_storage().nbytes() // one.element_size() > self.elements:
                self.elements, self.operation = one.untyped_storage().nbytes() // one.element_size(), str(func)
        return result


@pytest.mark.parametrize("impl", ["torch", "triton"])
@pytest.mark.parametrize(
    "name",
    [
        "softmax",
        "decoupled_softmax",
        "soft_topk",
        "binary_cross_entropy",
        "multi_label_cluster_discrimination",
        "triplet_margin",
    ],
)
def test_losses_never_hold_the_scores(name: str, impl: str) -> None:
    """The labels' gradient and one tile are the largest there is."""
    generator = torch.Generator().manual_seed(0)
    queries = normalize(torch.randn(QUERIES, DIMENSION, generator=generator), dim=1).requires_grad_()
    labels = normalize(torch.randn(LABELS, DIMENSION, generator=generator), dim=1).requires_grad_()
    positives = random_positives(QUERIES, LABELS, seed=1)
    options: dict[str, Any] = {"impl": impl}
    if name != "triplet_margin":
        options["tile_bytes"] = 2**16
    with Largest() as largest:
        getattr(losses, name)(queries, labels, positives, **options).backward()
    # The Triton engine keeps 2,048 candidates a query of a top-k, beyond what a loss needs otherwise.
    allowed = QUERIES * 2048 if impl == "triton" and name in ("soft_topk", "triplet_margin") else 2 * LABELS * DIMENSION
    assert largest.elements <= allowed, largest.operation
    assert allowed < QUERIES * LABELS


@pytest.mark.parametrize("impl", ["torch", "triton"])
def test_topk_never_holds_the_scores(impl: str) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(QUERIES, DIMENSION, generator=generator)
    labels = torch.randn(LABELS, DIMENSION, generator=generator)
    with Largest() as largest:
        topk_inner_product(queries, labels, 5, impl=impl, tile_bytes=2**16)
    assert largest.elements <= QUERIES * 2048, largest.operation


def test_the_dense_formula_is_noticed() -> None:
    """The check sees what it looks for."""
    queries, labels = torch.randn(QUERIES, DIMENSION), torch.randn(LABELS, DIMENSION)
    with Largest() as largest:
        (queries @ labels.T).logsumexp(1)
    assert largest.elements == QUERIES * LABELS
