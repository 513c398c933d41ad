"""Attention over segments in Triton, in the interpreter on a CPU and on a GPU where there is one, and torch's on CUDA."""

from __future__ import annotations

from typing import Any

import functorch.compile
import pytest
import torch
from random_kernel_inputs import needs_triton
from segment_problems import RAGGED, Run, assert_no_worse
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from xmc.kernels.attention import segment_attention

ENGINES = [
    pytest.param("cpu", id="interpreter", marks=needs_triton),
    pytest.param("cuda", id="GPU", marks=pytest.mark.cuda),
]
CASES: list[tuple[list[int], tuple[int, int, int], dict[str, Any]]] = [
    (RAGGED, (2, 1, 8), {}),
    (RAGGED, (2, 2, 20), {"causal": True}),
    ([50, 3], (2, 1, 16), {"window": 18}),
    ([17, 40], (3, 1, 32), {"causal": True, "window": 20, "scale": 0.3}),
    ([1], (1, 1, 4), {}),
    ([16, 16], (1, 1, 16), {"causal": True}),
]


HALVES = [
    pytest.param(*case, dtype, device.values[0], id=f"{case}-{dtype}-{device.id}", marks=device.marks)
    for device in ENGINES
    for dtype in (torch.bfloat16, torch.float16)
    for case in (CASES if device.id == "GPU" else CASES[:2])
]
"""Cases of 16 bits. The interpreter computes them in float32: two show that they get there and back."""


@pytest.mark.parametrize("device", ENGINES)
@pytest.mark.parametrize(("lengths", "shape", "options"), CASES, ids=str)
def test_against_the_truth(
    lengths: list[int], shape: tuple[int, int, int], options: dict[str, Any], device: str
) -> None:
    run = Run.random(lengths, *shape, **options).to(torch.float32, device)
    assert_no_worse(run, run.actual(impl="triton"))


@pytest.mark.parametrize(("lengths", "shape", "options", "dtype", "device"), HALVES)
def test_16_bits_against_the_truth(
    lengths: list[int], shape: tuple[int, int, int], options: dict[str, Any], dtype: torch.dtype, device: str
) -> None:
    run = Run.random(lengths, *shape, **options).to(dtype, device)
    assert_no_worse(run, run.actual(impl="triton"))


@pytest.mark.parametrize("device", ENGINES)
def test_views_of_other_layouts(device: str) -> None:
    """Tokens and heads in any order, a last dimension that is not contiguous, and gradients like that."""
    run = Run.random([5, 0, 12, 3], heads=2, groups=2, size=8).to(torch.float32, device)
    expected = run.actual(impl="triton")
    by_head = torch.cat([tensor.transpose(0, 1)[None] for tensor in run.tensors], -1).requires_grad_()
    for parts in (by_head[0].transpose(0, 1).split(8, -1), torch.stack(run.tensors, -1).unbind(-1)):
        out = segment_attention(*parts, run.offsets, run.longest, impl="triton")
        assert torch.equal(out, expected[0])
    out = segment_attention(*by_head[0].transpose(0, 1).split(8, -1), run.offsets, run.longest, impl="triton")
    (gradient,) = torch.autograd.grad(out.transpose(0, 2), by_head, run.incoming.transpose(0, 2))
    joined = torch.cat([tensor.transpose(0, 1)[None] for tensor in expected[1:]], -1)
    torch.testing.assert_close(gradient, joined)


@pytest.mark.parametrize("device", ENGINES)
@pytest.mark.parametrize("causal", [False, True])
def test_dropout(causal: bool, device: str) -> None:
    """Forward and backward pass leave the same probabilities, a share as expected, others with another seed."""
    run = Run.random([9, 0, 4, 19], heads=4, groups=2, size=32, causal=causal, dropout=0.3).to(torch.float32, device)
    kept = kept_by(run, 11)
    torch.manual_seed(11)
    actual = run.actual(impl="triton")
    for tensor, expected in zip(actual, run.to(torch.float64, device).truth(kept), strict=True):
        torch.testing.assert_close(tensor.double(), expected, rtol=2e-5, atol=2e-5)
    seen = kept_by(run, 11, dropout=0.0)
    share, deviation = kept.sum() / seen.sum(), (0.3 * 0.7 / float(seen.sum())) ** 0.5
    assert abs(float(share) - 0.7) < 5 * deviation
    assert not torch.equal(kept, kept_by(run, 12))
    assert not torch.equal(kept[0], kept[1])


def kept_by(run: Run, seed: int, **options: Any) -> Tensor:
    """The probabilities that dropout leaves, bool [H, T, T], read off values that are the identity: D = T = 32."""
    query, key, value = run.tensors
    one_hot = torch.eye(len(value), dtype=value.dtype, device=value.device)[:, None].expand_as(value)
    torch.manual_seed(seed)
    options = run.options | options
    out = segment_attention(query, key, one_hot, run.offsets, run.longest, impl="triton", **options)
    return (out > 0).transpose(0, 1)


@needs_triton
def test_compiled() -> None:
    """Whole graphs, in which the segments of tokens are found once for two layers."""
    torch._dynamo.reset()
    graphs: list[list[str]] = []

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
            graphs.append([str(node.target) for node in graph.graph.nodes])
            return graph

        partition = functorch.compile.min_cut_rematerialization_partition
        return aot_autograd(fw_compiler=functorch.compile.make_boxed_compiler(keep), partition_fn=partition)(
            module, inputs
        )

    def layers(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int) -> Tensor:
        for _ in range(2):
            query = segment_attention(query, key, value, offsets, longest, impl="triton")
        return query

    function = torch.compile(layers, backend=backend, fullgraph=True, dynamic=True)
    run = Run.random([3, 0, 4, 5], heads=2, groups=1, size=16).to(torch.float32)
    expected = run.evaluate(lambda q, k, v: layers(q, k, v, run.offsets, run.longest))
    actual = run.evaluate(lambda q, k, v: function(q, k, v, run.offsets, run.longest))
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert len(graphs) == 2  # forward and backward
    assert sum("segment_bounds" in target for target in graphs[0]) == 1


@pytest.mark.cuda
@pytest.mark.parametrize("impl", [None, "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(12, 12, 32), (9, 3, 64), (4, 1, 128), (2, 1, 256), (2, 2, 36)], ids=str)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 33}, {"causal": True, "window": 100}], ids=str)
def test_on_a_gpu(options: dict[str, Any], shape: tuple[int, int, int], dtype: torch.dtype, impl: str | None) -> None:
    """Head sizes of models and lengths of texts; without a request, 16 bits go to torch's attention over segments."""
    lengths = [0, 7, 12, 1, 0, 3, 129, 64, 5, 300, 8, 8, 0]
    run = Run.random(lengths, *shape, **options).to(dtype, "cuda")
    assert_no_worse(run, run.actual(impl=impl))


@pytest.mark.cuda
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gpu_is_not_waited_for(dtype: torch.dtype, dropout: float) -> None:
    run = Run.random([5, 9, 0, 70], heads=2, groups=1, size=32, dropout=dropout).to(dtype, "cuda")
    run.actual()  # what is compiled and measured once
    leaves = [tensor.clone().requires_grad_() for tensor in run.tensors]
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = segment_attention(*leaves, run.offsets, run.longest, **run.options)
        torch.autograd.grad(out, leaves, run.incoming)
    finally:
        torch.cuda.set_sync_debug_mode("default")
