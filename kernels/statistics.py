"""The streaming primitive: row statistics of the scores, which every loss is a formula over."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmc.errors import InputError, NotFiniteError
from xmc.kernels import reference, torch_tiles
from xmc.kernels.dispatch import choose_backend
from xmc.kernels.entries import Entries
from xmc.kernels.positives import Positives, require_positives
from xmc.kernels.problem import Problem, Result
from xmc.kernels.reductions import LogSumExp, Reduction, Sigmoid, Softplus
from xmc.kernels.shards import LabelShard

__all__ = [
    "DEFAULT_TILE_BYTES",
    "Positives",
    "label_statistics",
    "row_statistics",
    "sigmoid_statistics",
    "softplus_sum",
]

DEFAULT_TILE_BYTES = 64 * 2**20


class _RowStatistics(torch.autograd.Function):
    """A statistic v_i of s_ij = q_i·z_j / τ + o_j and the positives' scores, with their gradients.

    dS_ij = dv_i · f'(s_ij), plus the incoming gradient for a positive; then dQ = dS·Z / τ, dZ = dSᵀ·Q / τ,
    do_j = Σ_i dS_ij, and dτ = -Σ_i ⟨q_i, dq_i⟩ / τ without another pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        labels: Tensor,
        temperature: Tensor,
        bias: Tensor | None,
        shift: Tensor | None,
        problem: Problem,
        engine: ModuleType,
    ) -> tuple[Tensor, Tensor, Tensor]:
        needs_queries = ctx.needs_input_grad[0] or ctx.needs_input_grad[2]
        ctx.needs = (needs_queries, ctx.needs_input_grad[1], ctx.needs_input_grad[3])
        with torch.autocast(queries.device.type, enabled=False):
            result = engine.forward(problem, queries, labels, bias, ctx.needs)
        ctx.problem, ctx.engine, ctx.shift_dtype = problem, engine, None if shift is None else shift.dtype
        ctx.save_for_backward(queries, labels, temperature, bias, *result)
        ctx.mark_non_differentiable(result.derivative)
        return result.value, result.derivative, result.positive_scores

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, value_gradient: Tensor, derivative_gradient: Tensor, positive_gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        queries, labels, temperature, bias, *saved = ctx.saved_tensors
        result = Result(*saved)
        with torch.autocast(queries.device.type, enabled=False):
            found = ctx.engine.backward(
                ctx.problem, queries, labels, bias, result, value_gradient, positive_gradient, ctx.needs
            )
        needs = ctx.needs_input_grad
        temperature_gradient = None
        if needs[2]:
            inner = torch.linalg.vecdot(queries.to(found.queries.dtype), found.queries).sum()
            temperature_gradient = (-inner * ctx.problem.scale).to(temperature.dtype).reshape(temperature.shape)
        return (
            found.queries.to(queries.dtype) if needs[0] else None,
            None if found.labels is None else found.labels.to(labels.dtype),
            temperature_gradient,
            None if bias is None or found.bias is None else found.bias.to(bias.dtype),
            (value_gradient * result.derivative).to(ctx.shift_dtype) if needs[4] else None,
            None,
            None,
        )


def label_statistics(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 1.0,
    *,
    label_bias: Tensor | None = None,
    log_inclusion: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    skip: bool = True,
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each query's negatives, and the scores of its positives, with s_ij = q_i·z_j / τ + b_j.

    N_i = log Σ_{j ∉ P_i} exp(s_ij) / π_j and s_ip for p ∈ P_i. The B x L scores are never held: extra memory is
    O((B + L)·D + nnz) and one tile. Where all scores fit one tile, it is kept for the backward pass.

    Parameters
    ----------
    queries: [B, D], labels: [L, D]; float16, bfloat16, float32 or float64, of one dtype and device.
    positives: B rows of label positions in [0, L).
    temperature: τ > 0, a number, used in the precision of the inputs, or a tensor of one element (learned).
    label_bias: optional [L], b, added to every score of that label, in whichever role.
    log_inclusion: optional [L], where `labels` is a random sample of the label set: log π_j, π_j the probability that
        label j is in the sample. A label's exp(s_ij) then counts 1/π_j times among the negatives, which makes their sum an
        unbiased estimate of the sum over all labels (Horvitz and Thompson 1952; the log-q correction). A positive's own
        score stays as it is. Not differentiated.
    exclude: optional pairs that count nowhere, B rows of label positions in the form of `positives`; a pair that is also
        a positive stays one.
    tile_bytes: largest size of the score tile, in bytes.
    skip: whether the Triton engine may leave out tiles of the gradient of which no row would lose more than rounding takes
        from it anyway. A label that no query of the batch gives weight to then gets no gradient instead of a tiny one.
    impl: "triton", "torch" or "reference"; by default the environment variable XMC_KERNELS, else Triton on CUDA and torch
        elsewhere.
    shard: where labels are split over processes, which of them are given here; see xmc.kernels.shards.

    Returns
    -------
    negative_logsumexp [B] (-inf for a row without negatives) and positive_scores [nnz] in the order of
    `positives.indices`; float32, or float64 for float64 input and for the reference. Differentiable, once, in queries,
    labels, temperature and label_bias. Gradients are the same from run to run, save for what torch itself adds up in
    any order on CUDA (`torch.use_deterministic_algorithms` makes it keep one).

    Raises
    ------
    InputError: shapes, dtypes or devices that do not fit, a label position out of range, or τ that is not positive.
    NotFiniteError (an InputError): NaN, or infinities that cancel.
    ConfigError: an unknown backend, or one that cannot compute this.
    """
    offsets = label_bias
    if log_inclusion is not None:
        log_inclusion = log_inclusion.detach()
        offsets = -log_inclusion if label_bias is None else label_bias - log_inclusion
    negative_logsumexp, _, positive_scores = row_statistics(
        LogSumExp(),
        queries,
        labels,
        positives,
        temperature,
        label_bias=offsets,
        exclude=exclude,
        tile_bytes=tile_bytes,
        skip=skip,
        impl=impl,
        shard=shard,
    )
    if log_inclusion is not None:
        positive_scores = positive_scores + log_inclusion[positives.indices.long()]
    return negative_logsumexp, positive_scores


def sigmoid_statistics(
    queries: Tensor,
    labels: Tensor,
    shift: Tensor,
    scale: float = 1.0,
    *,
    temperature: float | Tensor = 1.0,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    skip: bool = True,
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over all labels of σ(α (s_ij + t_i)), and its derivative in t_i, with s_ij = q_i·z_j / τ + b_j.

    shift: t [B]. scale: α > 0. Everything else as in `label_statistics`, with its errors.

    Returns (sum [B], derivative [B]). The sum is differentiable, once, in queries, labels, shift, temperature and
    label_bias; the derivative is not.
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, section 4.3.
    """
    none = _no_positives(queries)
    reduction = Sigmoid(shift.detach(), scale)
    total, derivative, _ = row_statistics(
        reduction,
        queries,
        labels,
        none,
        temperature,
        shift=shift,
        label_bias=label_bias,
        exclude=exclude,
        tile_bytes=tile_bytes,
        skip=skip,
        impl=impl,
        shard=shard,
    )
    return total, derivative


def softplus_sum(
    queries: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    skip: bool = True,
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> Tensor:
    """Sum over all labels of log(1 + exp(s_ij)), [B], with s_ij = q_i·z_j / τ + b_j.

    Differentiable, once, in queries, labels, temperature and label_bias. Arguments and errors as in `label_statistics`.
    """
    none = _no_positives(queries)
    total, _, _ = row_statistics(
        Softplus(),
        queries,
        labels,
        none,
        temperature,
        label_bias=label_bias,
        exclude=exclude,
        tile_bytes=tile_bytes,
        skip=skip,
        impl=impl,
        shard=shard,
    )
    return total


def row_statistics(
    reduction: Reduction,
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor,
    *,
    shift: Tensor | None = None,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    skip: bool = True,
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the public functions are made of: (statistic [B], its derivative in the shift [B], positive scores [nnz]).

    One pass over the scores serves both a sum and the positives that a loss sets against it. `shift` [B] is what the
    reduction's own shift was detached from.
    """
    backend = choose_backend(impl, queries)
    everyone, places = positives, None
    if shard is not None:
        require_positives(positives, "positives")
        positives.check(len(queries), shard.total)
        positives, places = shard.own_pairs(positives, len(labels))
        exclude = None if exclude is None else shard.own_pairs(exclude, len(labels))[0]
        label_bias = None if label_bias is None else label_bias[shard.own(len(labels))]
    _check(queries, labels, positives, label_bias, shift, exclude)
    scale = 1.0 / temperature_of(temperature)
    temperature = torch.as_tensor(temperature, dtype=torch.promote_types(queries.dtype, torch.float32))
    found: tuple[Tensor, Tensor, Tensor]
    if backend == "reference":
        found = reference.row_statistics(
            reduction, queries, labels, positives, temperature.to(queries.device), label_bias, shift, exclude
        )
    else:
        entries = Entries.of(positives, exclude, len(labels))
        problem = Problem(reduction, entries, scale, tile_bytes, skip)
        engine = torch_tiles if backend == "torch" else importlib.import_module("xmc.kernels.triton_tiles.engine")
        found = _RowStatistics.apply(  # type: ignore[no-untyped-call]
            queries, labels, temperature, label_bias, shift, problem, engine
        )
    if shard is not None and places is not None:
        found = shard.combine(reduction, *found, places, len(everyone.indices))
    if bool(found[0].isnan().any()) or bool(found[2].isnan().any()):
        raise NotFiniteError(
            "queries, labels or their bias hold NaN, or infinities that cancel, which no loss can be made of."
        )
    return found


def temperature_of(temperature: float | Tensor) -> float:
    """τ as a number; InputError unless it is one positive number."""
    # A Python number has float64's precision, which torch's default dtype would round away.
    dtype = temperature.dtype if isinstance(temperature, Tensor) else torch.float64
    value = torch.as_tensor(temperature, dtype=dtype).detach()
    if value.numel() != 1 or not 0 < float(value) < torch.inf:
        raise InputError(f"temperature must be one positive number, but is {value.tolist()}.")
    return float(value)


def _no_positives(queries: Tensor) -> Positives:
    return Positives(
        torch.zeros(len(queries) + 1, dtype=torch.int64, device=queries.device),
        torch.zeros(0, dtype=torch.int64, device=queries.device),
    )


def _check(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    label_bias: Tensor | None,
    shift: Tensor | None,
    exclude: Positives | None,
) -> None:
    if queries.dim() != 2 or labels.dim() != 2 or queries.shape[1] != labels.shape[1]:
        raise InputError(
            f"queries [B, D] and labels [L, D] must be matrices with the same D, "
            f"but have the shapes {tuple(queries.shape)} and {tuple(labels.shape)}."
        )
    if queries.dtype != labels.dtype or not queries.is_floating_point():
        raise InputError(f"queries and labels must have one floating dtype, not {queries.dtype} and {labels.dtype}.")
    if label_bias is not None and label_bias.shape != (len(labels),):
        raise InputError(f"the labels' bias must have shape ({len(labels)},), not {tuple(label_bias.shape)}.")
    if shift is not None and shift.shape != (len(queries),):
        raise InputError(f"shift must have shape ({len(queries)},), not {tuple(shift.shape)}.")
    lists = [positives] if exclude is None else [positives, exclude]
    for one, name in zip(lists, ("positives", "exclude"), strict=False):
        require_positives(one, name)
    tensors = [queries, labels, *(one.indptr for one in lists), label_bias, shift]
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) != 1:
        raise InputError(f"all tensors must be on one device, not on {sorted(map(str, devices))}.")
    for one, name in zip(lists, ("positives", "exclude"), strict=False):
        one.check(len(queries), len(labels), name)
