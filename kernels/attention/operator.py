"""Attention over segments as one operator of PyTorch, which compilers, autograd and checkpointing take as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xmc.kernels.attention import grouped
from xmc.kernels.attention.options import AttentionOptions
from xmc.kernels.devices import without_autocast

__all__ = ["attention_operator"]


@torch.library.custom_op("xmc::segment_attention", mutates_args=())
def attention_operator(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    seed: Tensor | None,
    longest: int,
    causal: bool,
    scale: float,
    window: int,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Values [T, H, D] and what the backward pass needs besides, differentiable in query, key and value.

    Arguments as in `segment_attention`; window 0 for none. seed: int64 [1], with dropout.
    """
    options = AttentionOptions(causal, scale, window, dropout)
    with without_autocast(query):
        return grouped.forward(query, key, value, offsets, longest, options, seed)


@attention_operator.register_fake
def _(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    logsumexp = query.new_empty(query.shape[:2], dtype=grouped.computing_dtype(query.dtype))
    return query.new_empty(query.shape), logsumexp


@torch.library.custom_op("xmc::segment_attention_backward", mutates_args=())
def _backward_operator(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    offsets: Tensor,
    seed: Tensor | None,
    longest: int,
    causal: bool,
    scale: float,
    window: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    options = AttentionOptions(causal, scale, window, dropout)
    with without_autocast(query):
        return grouped.backward(gradient, query, key, value, out, logsumexp, offsets, longest, options, seed)


@_backward_operator.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, offsets, seed, *ctx.options = inputs
    ctx.save_for_backward(query, key, value, *output, offsets, seed)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradient: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    none = (None,) * (2 + len(ctx.options))
    if gradient is None:
        return None, None, None, *none
    return *_backward_operator(gradient, *ctx.saved_tensors, *ctx.options), *none


attention_operator.register_autograd(_backward, setup_context=_save)
