"""Attention over segments on a CPU against the float64 reference: values and gradients, and every way in which it is called."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from segment_problems import RAGGED, Run, assert_no_worse
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xmc.errors import ConfigError, InputError
from xmc.kernels.attention import pieces, segment_attention
from xmc.kernels.attention.choice import AtHand, at_hand, engine_of, flash_fits, varlen_attention

LENGTHS = {
    "ragged": RAGGED,
    "alone": [13],
    "one token": [1],
    "equal": [4, 4, 4],
    "empty ends": [0, 5, 0],
    "long": [150, 7, 150, 400],
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"causal": True},
    {"window": 3},
    {"causal": True, "window": 2, "scale": 0.7},
    {"window": 140},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", LENGTHS)
def test_float64(name: str, options: dict[str, Any]) -> None:
    run = Run.random(LENGTHS[name], heads=4, groups=2, size=8, **options)
    for actual, expected in zip(run.actual(), run.truth(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 5}], ids=str)
@pytest.mark.parametrize("name", ["ragged", "alone"])
def test_reduced_precision(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    run = Run.random(LENGTHS[name], heads=3, groups=1, size=16, **options).to(dtype)
    assert_no_worse(run, run.actual())


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]], ids=str)
def test_a_run_without_tokens(lengths: list[int]) -> None:
    run = Run.random(lengths, heads=2, groups=1, size=4)
    assert [tensor.shape[0] for tensor in run.actual()] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["ragged", "alone"])
def test_views_of_other_layouts(name: str) -> None:
    """As models hold them: [1, H, T, D] transposed, and parts of one tensor; and gradients that are not contiguous."""
    run = Run.random(LENGTHS[name], heads=2, groups=2, size=4)
    expected = run.actual()
    together = torch.stack(run.tensors, -1).requires_grad_()
    by_head = torch.cat([tensor.transpose(0, 1)[None] for tensor in run.tensors], -1).requires_grad_()
    for leaf, parts in ((together, together.unbind(-1)), (by_head, by_head[0].transpose(0, 1).split(4, -1))):
        out = segment_attention(*parts, run.offsets, run.longest)
        torch.testing.assert_close(out, expected[0])
        (gradient,) = torch.autograd.grad(out.transpose(0, 2), leaf, run.incoming.transpose(0, 2))
        joined = torch.stack(expected[1:], -1)
        if leaf is by_head:
            joined = torch.cat([tensor.transpose(0, 1)[None] for tensor in expected[1:]], -1)
        torch.testing.assert_close(gradient, joined)


def test_scores_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout's pieces hold few scores however long a segment is, and give the same whatever that number is."""
    options = Run.random([1], 1, 1, 1, dropout=0.5).parsed
    runs = pieces.Runs.from_offsets(torch.tensor([0, 4096, 8192, 8200], dtype=torch.int32), 8200, 4096)
    for piece in pieces.pieces_of(runs, 12, options, bounded=True):
        assert piece.count * 12 * (piece.bottom - piece.top) * (piece.right - piece.left) <= pieces.SCORES
    run = Run.random([9, 9, 9, 30], heads=2, groups=1, size=4, causal=True, dropout=1e-9)
    for most in (1, 150, 10**6):
        monkeypatch.setattr(pieces, "SCORES", most)
        for actual, expected in zip(run.actual(), run.truth(), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


def kept_by(run: Run, seed: int, **options: Any) -> Tensor:
    """The probabilities that dropout leaves, bool [H, T, T], read off values that are the identity: D = T."""
    query, key, value = run.tensors
    tokens = len(query)
    one_hot = torch.eye(tokens, dtype=value.dtype, device=value.device)[:, None].expand(tokens, value.shape[1], tokens)
    torch.manual_seed(seed)
    out = segment_attention(query, key, one_hot, run.offsets, run.longest, **options)
    return (out > 0).transpose(0, 1)


@pytest.mark.parametrize("causal", [False, True])
def test_dropout(causal: bool) -> None:
    """Forward and backward pass leave the same probabilities, a share as expected, others with another seed."""
    run = Run.random([9, 4, 0, 9, 18], heads=4, groups=2, size=40, causal=causal, dropout=0.3)
    options = run.options | {"scale": 40**-0.5}
    kept = kept_by(run, 11, **options)
    torch.manual_seed(11)
    for actual, expected in zip(run.actual(), run.truth(kept), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    seen = kept_by(run, 11, **options | {"dropout": 0.0})
    share, deviation = kept.sum() / seen.sum(), (0.3 * 0.7 / float(seen.sum())) ** 0.5
    assert abs(float(share) - 0.7) < 5 * deviation
    assert not torch.equal(kept, kept_by(run, 12, **options))


def test_checkpointing_repeats_dropout() -> None:
    run = Run.random([5, 8, 5], heads=2, groups=2, size=4, dropout=0.4)
    found = []
    for again in (False, True):
        leaves = [tensor.clone().requires_grad_() for tensor in run.tensors]
        torch.manual_seed(5)
        arguments = (*leaves, run.offsets, run.longest)
        if again:
            out = checkpoint(segment_attention, *arguments, dropout=0.4, use_reentrant=False)
        else:
            out = segment_attention(*arguments, dropout=0.4)
        found.append([out, *torch.autograd.grad(out, leaves, run.incoming)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def compiled(backend: str) -> None:
    """Whole graphs, one for all numbers of tokens and segments, and the gradients of plain calls."""
    torch._dynamo.reset()

    def layer(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int) -> Tensor:
        return segment_attention(query * 2, key, value + 1, offsets, longest, causal=True) * 3

    function = torch.compile(layer, backend=backend, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for lengths in ([3, 4, 5], [7, 1, 0, 2, 9], [2, 2]):
            run = Run.random(lengths, heads=2, groups=1, size=16)  # sizes that are equal would be taken for one
            expected = run.evaluate(lambda q, k, v: layer(q, k, v, run.offsets, run.longest))  # noqa: B023
            actual = run.evaluate(lambda q, k, v: function(q, k, v, run.offsets, run.longest))  # noqa: B023
            for one, other in zip(actual, expected, strict=True):
                torch.testing.assert_close(one, other)


def test_what_is_at_hand_is_marked_as_the_compiler_marks_it() -> None:
    marks = dict(vars(at_hand))
    assert vars(torch.compiler.assume_constant_result(at_hand)) == marks


def test_compiled() -> None:
    compiled("aot_eager")


@pytest.mark.slow
def test_compiled_by_inductor() -> None:
    compiled("inductor")


@pytest.mark.parametrize("name", ["ragged", "alone"])
def test_modes(name: str) -> None:
    """Without gradients, in inference mode, under autocast and in several threads."""
    run = Run.random(LENGTHS[name], heads=2, groups=1, size=8).to(torch.float32)
    expected = run.actual()
    with torch.no_grad():
        assert torch.equal(run.actual_values(), expected[0])
    with torch.inference_mode():
        assert torch.equal(run.actual_values(), expected[0])
    with torch.autocast("cpu", torch.bfloat16):
        values = run.actual_values()
    assert values.dtype == torch.bfloat16
    torch.testing.assert_close(values, run.to(torch.bfloat16).actual_values())
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: run.actual(), range(8)):
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_reference_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.random(RAGGED, heads=2, groups=1, size=4)
    for one, other in zip(run.actual(impl="reference"), run.truth(), strict=True):
        assert torch.equal(one, other)
    monkeypatch.setenv("XMC_KERNELS", "nothing")
    with pytest.raises(ConfigError, match="XMC_KERNELS asks for the kernel backend 'nothing'"):
        run.actual()


def call(query: Tensor, key: Tensor, offsets: Any = (0, 2, 5), longest: int = 3, **options: Any) -> Tensor:
    dtype = options.pop("offsets_dtype", torch.int32)
    value = options.pop("value", key)
    return segment_attention(query, key, value, torch.tensor(offsets, dtype=dtype), longest, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": torch.zeros(4, 2, 8)}, "must agree in T and D"),
        ({"query": torch.zeros(5, 3, 8)}, "2 heads of keys must divide the 3 heads of queries"),
        ({"query": torch.zeros(5, 2, 8, dtype=torch.int64)}, "must be floating"),
        ({"query": torch.zeros(5, 2, 8).double()}, "must have one dtype, but have torch.float64"),
        ({"offsets_dtype": torch.int64}, "offsets must be int32"),
        ({"offsets": (0, 2, 4)}, "offsets must rise from 0 to the number of tokens, 5"),
        ({"offsets": (0, 4, 2, 5)}, "offsets must rise"),
        ({"offsets": (1, 2, 5)}, "offsets must rise"),
        ({"longest": 2}, "longest is 2, but a segment has 3 tokens"),
        ({"window": 0}, "window must be at least 1"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1, but is 1.0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(**{"query": torch.zeros(5, 2, 8), "key": torch.zeros(5, 2, 8)} | arguments)


@pytest.mark.parametrize("impl", ["torch", "reference"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"offsets": (0, 3)}, "offsets must rise from 0 to the number of tokens, 5"),
        ({"offsets": (1, 5)}, "offsets must rise"),
        ({"offsets": (0,)}, "offsets must rise"),
        ({"offsets": (0, 5), "longest": 4}, "longest is 4, but a segment has 5 tokens"),
    ],
)
def test_wrong_offsets_of_one_segment(arguments: dict[str, Any], message: str, impl: str) -> None:
    """One text alone takes a way of its own."""
    with pytest.raises(InputError, match=message):
        call(torch.zeros(5, 2, 8), torch.zeros(5, 2, 8), **arguments, impl=impl)


CPU, HOPPER, TURING = AtHand("torch", False, 0), AtHand("triton", False, 90), AtHand("triton", False, 75)


@pytest.mark.parametrize(
    ("there", "dtype", "head_size", "dropout", "engine"),
    [
        (CPU, torch.bfloat16, 64, False, "torch"),
        (HOPPER, torch.bfloat16, 64, False, "varlen"),
        (HOPPER, torch.bfloat16, 64, True, "triton"),
        (HOPPER, torch.float32, 64, False, "triton"),
        (HOPPER, torch.float32, 512, False, "torch"),
        (TURING, torch.float16, 64, False, "triton"),
        (AtHand("torch", False, 90), torch.bfloat16, 64, False, "varlen"),  # without triton
        (AtHand("torch", True, 90), torch.bfloat16, 64, False, "varlen"),
        (AtHand("torch", True, 90), torch.bfloat16, 64, True, "torch"),
        (AtHand("triton", True, 90), torch.bfloat16, 64, False, "triton"),
        (AtHand("reference", True, 90), torch.bfloat16, 64, False, "reference"),
    ],
)
def test_engines(there: AtHand, dtype: torch.dtype, head_size: int, dropout: bool, engine: str) -> None:
    assert engine_of(there, dtype, head_size, dropout) == engine


def test_triton_has_no_larger_heads() -> None:
    with pytest.raises(ConfigError, match="heads of size 257 exceed 256"):
        engine_of(AtHand("triton", True, 90), torch.float32, 257, False)


def test_torch_has_attention_over_segments() -> None:
    """With the arguments that a call gives it; the versions that this package takes all have it."""
    assert varlen_attention() is not None
    assert at_hand(torch.device("cpu"), torch.float32, None) == CPU


@pytest.mark.parametrize(
    ("dtype", "head_size", "dropout", "capability", "fits"),
    [
        (torch.bfloat16, 64, False, 90, True),
        (torch.float16, 32, False, 80, True),
        (torch.float32, 64, False, 90, False),
        (torch.bfloat16, 64, True, 90, False),
        (torch.bfloat16, 36, False, 90, False),
        (torch.bfloat16, 256, False, 90, True),
        (torch.bfloat16, 256, False, 89, False),
        (torch.bfloat16, 264, False, 90, False),
        (torch.float16, 64, False, 75, False),
    ],
)
def test_what_torch_has_attention_over_segments_for(
    dtype: torch.dtype, head_size: int, dropout: bool, capability: int, fits: bool
) -> None:
    assert flash_fits(dtype, head_size, dropout, capability) == fits
