"""Launchers of the kernels: a forward pass of one launch, a backward pass of two."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from xmc.kernels.attention.options import AttentionOptions
from xmc.kernels.attention.triton_kernels.backward import key_gradients, query_gradients
from xmc.kernels.attention.triton_kernels.forward import attend
from xmc.kernels.attention.triton_kernels.shapes import BlockShape, block_shape
from xmc.kernels.triton_tiles.heuristics import interpreting

__all__ = ["backward", "forward"]

SMALLEST_SIZE = 16
"""Head size up to which smaller ones are padded, as matrix instructions take them."""


def forward(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, options: AttentionOptions, seed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Values [T, H, D] and log-sum-exp of the scores in base 2, float32 [H, T]; bounds: as `segment_bounds` makes them."""
    dtype, (tokens, heads, size) = query.dtype, query.shape
    query, key, value = (_prepared(tensor) for tensor in (query, key, value))
    out = query.new_empty(query.shape)
    logsumexp = query.new_empty((heads, tokens), dtype=torch.float32)
    shape = block_shape("forward", dtype, _padded(size), dropped=seed is not None)
    attend[(triton.cdiv(tokens, shape.kept), heads)](
        query=query, key=key, value=value, out=out, logsumexp=logsumexp, ROWS=shape.kept, KEYS=shape.passing,
        **_strides(query=query, key=key, value=value, out=out),
        **_arguments(query, key, bounds, options, seed, shape),
    )  # fmt: skip
    return out.to(dtype), logsumexp


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    bounds: Tensor,
    options: AttentionOptions,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, contiguous, from that of the values and from what `forward` returned."""
    dtype, (tokens, heads, size) = query.dtype, query.shape
    gradient, query, key, value, out = (_prepared(tensor) for tensor in (gradient, query, key, value, out))
    of_query, of_key, of_value = (tensor.new_empty(tensor.shape) for tensor in (query, key, value))
    inner = torch.empty_like(logsumexp)
    given = {"gradient": gradient, "query": query, "key": key, "value": value}
    common = {**given, "logsumexp": logsumexp, "inner": inner, "scale": options.scale}
    shape = block_shape("query gradients", dtype, _padded(size), dropped=seed is not None)
    query_gradients[(triton.cdiv(tokens, shape.kept), heads)](
        out=out, of_query=of_query, ROWS=shape.kept, KEYS=shape.passing,
        **common, **_strides(**given, out=out), **_arguments(query, key, bounds, options, seed, shape),
    )  # fmt: skip
    shape = block_shape("key gradients", dtype, _padded(size), dropped=seed is not None)
    key_gradients[(triton.cdiv(tokens, shape.kept), key.shape[1])](
        of_key=of_key, of_value=of_value, KEYS=shape.kept, ROWS=shape.passing,
        **common, **_strides(**given, result=of_key), **_arguments(query, key, bounds, options, seed, shape),
    )  # fmt: skip
    return of_query.to(dtype), of_key.to(dtype), of_value.to(dtype)


def _arguments(
    query: Tensor, key: Tensor, bounds: Tensor, options: AttentionOptions, seed: Tensor | None, shape: BlockShape
) -> dict[str, Any]:
    """Arguments of all kernels. Exact products of float32, whatever is allowed elsewhere."""
    tokens, heads, size = query.shape
    return {
        "bounds": bounds, "seed": seed, "tokens": tokens, "group": heads // key.shape[1],
        "unit": options.scale * math.log2(math.e), "window": options.window, "dropout": options.dropout,
        "CAUSAL": options.causal, "WINDOWED": options.window > 0, "DROPPED": seed is not None,
        "DEPTH": size, "SIZE": _padded(size), "PRECISION": "ieee", "num_warps": shape.warps, "num_stages": shape.stages,
    }  # fmt: skip


def _strides(**tensors: Tensor) -> dict[str, int]:
    """Elements from token to token and from head to head of each tensor."""
    return {
        f"{name}_{unit}": tensor.stride(place)
        for name, tensor in tensors.items()
        for place, unit in enumerate(("token", "head"))
    }


def _padded(size: int) -> int:
    return max(SMALLEST_SIZE, 1 << (size - 1).bit_length())


def _prepared(tensor: Tensor) -> Tensor:
    """The tensor with a contiguous last dimension; in float32 where the interpreter would multiply raw bits of bfloat16."""
    if interpreting() and tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor if tensor.stride(2) == 1 else tensor.contiguous()
