"""Memory of a GPU that the Triton engine takes at full size, counted on the meta device: kernels are not launched there.

Every tensor is one of the allocator, rounded up to 512 bytes and freed with its last reference, as torch's is on CUDA.
"""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from random_kernel_inputs import needs_triton
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from xmc.kernels.losses import Positives, decoupled_softmax

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

from xmc.kernels.triton_tiles import product
from xmc.kernels.triton_tiles.heuristics import Machine

QUERIES, LABELS, DIMENSION, POSITIVES = 4096, 1_310_720, 768, 5
MIB = 2**20


class Allocations(TorchDispatchMode):
    """Counts the bytes of tensors that live besides the inputs, and the most of them at a time."""

    def __init__(self, *inputs: torch.Tensor) -> None:
        super().__init__()
        self.live = {tensor.untyped_storage()._cdata: 0 for tensor in inputs}
        self.highest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
                storage = leaf.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = -(-storage.nbytes() // 512) * 512
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.highest = max(self.highest, sum(self.live.values()))
        return result


@pytest.fixture
def unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of an H100 are called and not run."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    monkeypatch.setattr(interpreter.InterpretedFunction, "run", lambda *args, **options: None)
    monkeypatch.setattr(product, "machine_of", lambda device: Machine(90, 132))
    monkeypatch.setattr(product, "interpreting", lambda: False)


@needs_triton
@pytest.mark.parametrize(
    ("tile_bytes", "keep_bytes", "most"),
    [(2**30, 0, 1024 + 32), (64 * MIB, 0, 64 + 32), (64 * MIB, 512 * MIB, 512 + 64 + 32)],
)
def test_extra_memory(unlaunched: None, tile_bytes: int, keep_bytes: int, most: int) -> None:
    """On top of inputs and their gradients: the budget, and the queries' gradient in float32 once and once for its product.

    1 GiB is what "auto" stands for on a GPU with 8 GiB free.
    """
    generator = torch.Generator().manual_seed(0)
    lists = torch.randint(0, LABELS, (QUERIES, POSITIVES), generator=generator)
    positives = Positives.from_lists(lists.sort(1).values.tolist()).to("meta")
    queries = torch.empty(QUERIES, DIMENSION, dtype=torch.bfloat16, device="meta", requires_grad=True)
    labels = torch.empty(LABELS, DIMENSION, dtype=torch.bfloat16, device="meta", requires_grad=True)
    with Allocations(queries, labels) as allocations:
        loss = decoupled_softmax(
            queries, labels, positives, 0.05, impl="triton", tile_bytes=tile_bytes, keep_bytes=keep_bytes
        )
        forward = allocations.highest
        loss.backward()
    gradients = 2 * (QUERIES + LABELS) * DIMENSION
    extra = (max(forward, allocations.highest - gradients)) / MIB
    assert extra <= most
    assert extra >= 0.9 * tile_bytes / MIB  # and the budget is used, or the count sees nothing
