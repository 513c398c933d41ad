"""What is particular to the Triton engine."""

from __future__ import annotations

import pytest
import torch
from random_kernel_inputs import needs_triton
from torch import Tensor
from torch.nn.functional import normalize

from xmc.kernels.losses import decoupled_softmax
from xmc.kernels.positives import Positives

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

DEVICES = [
    pytest.param("cpu", id="interpreter", marks=needs_triton),
    pytest.param("cuda", id="cuda", marks=pytest.mark.cuda),
]


def peaked(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Positives]:
    """Labels of 12 groups, each of several tiles, each query near one label: most tiles weigh nothing in most rows."""
    generator = torch.Generator().manual_seed(1)
    size, step = (60, 5) if device == "cpu" else (1024, 8)
    centres = normalize(torch.randn(12, 24, generator=generator), dim=1)
    noise = torch.randn(12 * size, 24, generator=generator)
    labels = normalize(centres.repeat_interleave(size, 0) + 0.1 * noise, dim=1)
    chosen = torch.arange(0, 4 * size, step)
    queries = normalize(labels[chosen] + 0.05 * torch.randn(len(chosen), 24, generator=generator), dim=1)
    positives = Positives.from_lists([[int(one)] for one in chosen]).to(device)
    return queries.to(device, dtype), labels.to(device, dtype), positives


@pytest.mark.parametrize("device", DEVICES)
def test_results_are_the_same_from_run_to_run(device: str) -> None:
    queries, labels, positives = peaked(torch.float32, device)
    found = []
    for _ in range(2):
        q, z = queries.clone().requires_grad_(), labels.clone().requires_grad_()
        loss = decoupled_softmax(q, z, positives, 0.02, impl="triton")
        loss.backward()
        assert q.grad is not None
        assert z.grad is not None
        found.append((loss.detach(), q.grad, z.grad))
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))
