"""Attention over segments: the public function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xmc.errors import InputError
from xmc.kernels.attention import reference
from xmc.kernels.attention.choice import at_hand, engine_of, varlen_attention
from xmc.kernels.attention.grouped import computing_dtype
from xmc.kernels.attention.operator import attention_operator
from xmc.kernels.attention.options import AttentionOptions
from xmc.kernels.attention.pieces import checked_edges
from xmc.kernels.devices import without_autocast

__all__ = ["segment_attention"]


def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    longest: int,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
    impl: str | None = None,
) -> Tensor:
    """Softmax attention of every token to the tokens of its own segment: softmax(scale · Q Kᵀ) V, [T, H, D].

    Parameters
    ----------
    query: [T, H, D], key, value: [T, G, D], floating, of one dtype and device, in any layout; G divides H, and head h looks at
        the keys of head h // (H / G). Under autocast they are cast to its dtype.
    offsets: int32 [n + 1] on their device, rising from 0 to T: segment i is the tokens from offsets[i] to offsets[i + 1].
        Segments may be empty.
    longest: an upper bound of the segments' lengths.
    causal: whether a token sees only itself and tokens before it.
    scale: D ** -0.5 by default.
    window: a token sees tokens at a distance below it; by default at any distance.
    dropout: share of the attention probabilities that becomes zero; the others are divided by 1 - dropout. The zeros depend
        on one seed, drawn from the device's default generator.
    impl: "triton", "torch" or "reference"; by default the environment variable XMC_KERNELS, else what is fastest.

    The result has the dtype of the query; scores are computed at least in float32. Differentiable once in query, key and
    value. Extra memory is O(T·H·D). Nothing waits for a GPU, unless "torch" is asked for there or is all there is.

    Raises InputError for shapes, dtypes, devices or options that do not fit, and on a CPU for offsets that do not rise from 0
    to T or a segment that is longer than `longest`; ConfigError for an unknown `impl`, or one that cannot compute this.
    """
    _check(query, key, value, offsets, window, dropout)
    query, key, value = _under_autocast(query, key, value)
    if not query.dtype == key.dtype == value.dtype:
        raise InputError(
            f"query, key and value must have one dtype, but have {query.dtype}, {key.dtype} and {value.dtype}."
        )
    options = AttentionOptions(causal, query.shape[2] ** -0.5 if scale is None else scale, window or 0, dropout)
    if len(query) == 0:
        return query + key.sum() + value.sum()  # empty, with a gradient for each
    engine = engine_of(at_hand(query.device, query.dtype, impl), query.dtype, query.shape[2], dropout > 0)
    if engine == "reference":
        checked_edges(offsets, len(query), longest)
        return reference.segment_attention(query, key, value, offsets, options).to(query.dtype)
    if engine == "varlen":
        return _varlen(query, key, value, offsets, longest, options)
    plain = not (window or dropout or torch.compiler.is_compiling())
    if engine == "torch" and query.device.type == "cpu" and len(offsets) == 2 and plain:
        checked_edges(offsets, len(query), longest)
        return _alone(query, key, value, options)
    segments = offsets
    if engine == "triton":
        from xmc.kernels.attention.triton_kernels.bounds import segment_bounds

        segments = segment_bounds(offsets, len(query))
    seed = torch.randint(2**31 - 1, (1,), device=query.device) if dropout else None
    out: Tensor
    out, _ = attention_operator(
        query, key, value, segments, seed, engine, longest, causal, options.scale, options.window, dropout
    )
    return out


def _alone(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions) -> Tensor:
    """One segment alone, on a CPU: as `grouped` computes it, with nothing around it."""
    dtype, group = computing_dtype(query.dtype), query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    q, k, v = (tensor.to(dtype).transpose(0, 1)[None] for tensor in (query, key, value))
    with without_autocast(query):
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=options.causal, scale=options.scale)
    return out[0].transpose(0, 1).to(query.dtype)


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int, options: AttentionOptions
) -> Tensor:
    """PyTorch's own attention over segments, on CUDA."""
    function = varlen_attention()
    assert function is not None
    before = options.window - 1  # -1 for no window, as the function has it
    query, key, value = (tensor if tensor.stride(2) == 1 else tensor.contiguous() for tensor in (query, key, value))
    out: Tensor = function(
        query,
        key,
        value,
        offsets,
        offsets,
        longest,
        longest,
        scale=options.scale,
        window_size=(before, 0 if options.causal else before),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out


def _under_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where it is on, but for float64, which autocast leaves alone."""
    kind = tensors[0].device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)


def _check(query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, window: int | None, dropout: float) -> None:
    if query.dim() != 3 or key.dim() != 3 or key.shape != value.shape or query.shape[::2] != key.shape[::2]:
        raise InputError(
            "query [T, H, D], key and value [T, G, D] must agree in T and D, but have the shapes "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}."
        )
    if key.shape[1] == 0 or query.shape[1] % key.shape[1]:
        raise InputError(f"{key.shape[1]} heads of keys must divide the {query.shape[1]} heads of queries.")
    if not query.is_floating_point() or len({query.device, key.device, value.device, offsets.device}) > 1:
        raise InputError(
            f"query, key and value must be floating, and on one device with offsets, but are {query.dtype} on {query.device}, "
            f"{key.device}, {value.device} and {offsets.device}."
        )
    if offsets.dim() != 1 or offsets.dtype != torch.int32:
        raise InputError(f"offsets must be int32 [n + 1], not {offsets.dtype} {tuple(offsets.shape)}.")
    if window is not None and window < 1:
        raise InputError(f"window must be at least 1, for a token sees itself, but is {window}.")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be from 0 to below 1, but is {dropout}.")
