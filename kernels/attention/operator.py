"""Attention over segments as one operator of PyTorch, which compilers, autograd and checkpointing take as it is."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from xmc.kernels.attention import grouped
from xmc.kernels.attention.options import AttentionOptions
from xmc.kernels.devices import without_autocast

__all__ = ["attention_operator"]


def _triton() -> Any:
    """The launchers, whose module needs triton."""
    return importlib.import_module("xmc.kernels.attention.triton_kernels.launch")


@torch.library.custom_op("xmc::segment_attention", mutates_args=())
def attention_operator(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Tensor,
    seed: Tensor | None,
    engine: str,
    longest: int,
    causal: bool,
    scale: float,
    window: int,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Values [T, H, D] and what the backward pass needs besides, differentiable in query, key and value.

    Arguments as in `segment_attention`; window 0 for none. seed: int64 [1], with dropout. engine: "torch", for which segments
    are offsets, or "triton", for which they are what `segment_bounds` makes of them.
    """
    options = AttentionOptions(causal, scale, window, dropout)
    with without_autocast(query):
        if engine == "torch":
            return grouped.forward(query, key, value, segments, longest, options, seed)
        found: tuple[Tensor, Tensor] = _triton().forward(query, key, value, segments, options, seed)
        return found


@attention_operator.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, seed: Tensor | None, engine: str, *rest: Any
) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = query.shape
    shape = (tokens, heads) if engine == "torch" else (heads, tokens)
    return query.new_empty(query.shape), query.new_empty(shape, dtype=grouped.computing_dtype(query.dtype))


@torch.library.custom_op("xmc::segment_attention_backward", mutates_args=())
def _backward_operator(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    segments: Tensor,
    seed: Tensor | None,
    engine: str,
    longest: int,
    causal: bool,
    scale: float,
    window: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    options = AttentionOptions(causal, scale, window, dropout)
    saved = (query, key, value, out, logsumexp, segments)
    with without_autocast(query):
        if engine == "torch":
            return grouped.backward(gradient, *saved, longest, options, seed)
        found: tuple[Tensor, Tensor, Tensor] = _triton().backward(gradient, *saved, options, seed)
        return found


@_backward_operator.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, segments, seed, *ctx.options = inputs
    ctx.save_for_backward(query, key, value, *output, segments, seed)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradient: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    none = (None,) * (2 + len(ctx.options))
    if gradient is None:
        return None, None, None, *none
    return *_backward_operator(gradient, *ctx.saved_tensors, *ctx.options), *none


attention_operator.register_autograd(_backward, setup_context=_save)
