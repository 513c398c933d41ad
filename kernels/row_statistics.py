"""One pass over the scores of all labels: a reduction of each row, and the scores of the positives, with their gradients."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xmc.errors import ConfigError, InputError, NotFiniteError
from xmc.kernels import reference, torch_blocks, torch_device, torch_tiles
from xmc.kernels.budget import TileBytes, kept_budget, tile_budget
from xmc.kernels.devices import values_are_free, without_autocast
from xmc.kernels.dispatch import choose_backend
from xmc.kernels.positives import Positives, require_positives
from xmc.kernels.problem import Problem, Result
from xmc.kernels.reductions import Reduction, Sigmoid
from xmc.kernels.shards import LabelShard

__all__ = ["block_moments", "row_statistics", "temperature_of"]


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
        with without_autocast(queries):
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
        with without_autocast(queries):
            gradients = ctx.engine.backward(
                ctx.problem, queries, labels, bias, result, value_gradient, positive_gradient, ctx.needs
            )
        needs = ctx.needs_input_grad
        temperature_gradient = None
        if needs[2]:
            inner = torch.linalg.vecdot(queries.to(gradients.queries.dtype), gradients.queries).sum()
            temperature_gradient = (-inner * ctx.problem.scale).to(temperature.dtype).reshape(temperature.shape)
        return (
            gradients.queries.to(queries.dtype) if needs[0] else None,
            None if gradients.labels is None else gradients.labels.to(labels.dtype),
            temperature_gradient,
            None if bias is None or gradients.bias is None else gradients.bias.to(bias.dtype),
            (value_gradient * result.derivative).to(ctx.shift_dtype) if needs[4] else None,
            None,
            None,
        )


def row_statistics(
    reduction: Reduction,
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor,
    *,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: TileBytes = "auto",
    keep_bytes: int = 0,
    negatives_dtype: str | None = None,
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A reduction of each query's scores: (value [B], its derivative in the shift [B], scores of the positives [nnz]).

    One pass over the scores serves both a sum and the positives that a loss sets against it. The value and the positives'
    scores are differentiable, once, in queries, labels, temperature, label_bias and the reduction's shift; the derivative is
    not, and is zero for a reduction without a shift. Arguments and errors as in `label_statistics`; what is on a device is not
    asked for its values.
    """
    backend = choose_backend(impl, queries, on_device=reduction.device_module is not None)
    eight_bit, kept = _eight_bit(negatives_dtype, backend), kept_budget(keep_bytes)
    all_positives, positions = positives, None
    if shard is not None:
        positives, positions, exclude, label_bias = _inside(shard, queries, labels, positives, exclude, label_bias)
    _check(queries, labels, positives, label_bias, reduction.shift, exclude)
    scale = _scale(temperature, queries)
    temperature = torch.as_tensor(temperature, dtype=torch.promote_types(queries.dtype, torch.float32))
    statistics: tuple[Tensor, Tensor, Tensor]
    if backend == "reference":
        statistics = reference.row_statistics(
            reduction, queries, labels, positives, temperature.to(queries.device), label_bias, exclude
        )
    else:
        budget = tile_budget(tile_bytes, queries.device)
        problem = Problem(reduction.detached(), positives, exclude, len(labels), scale, budget, kept, eight_bit)
        engine = _engine(backend, queries)
        statistics = _RowStatistics.apply(  # type: ignore[no-untyped-call]
            queries, labels, temperature, label_bias, reduction.shift, problem, engine
        )
    if shard is not None and positions is not None:
        statistics = shard.combine(reduction.detached(), *statistics, positions, len(all_positives.indices))
    if values_are_free(queries) and (bool(statistics[0].isnan().any()) or bool(statistics[2].isnan().any())):
        raise NotFiniteError(
            "queries, labels or their bias hold NaN, or infinities that cancel, which no loss can be made of."
        )
    return statistics


@torch.no_grad()
def block_moments(
    sigmoid: Sigmoid,
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor,
    *,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: TileBytes = "auto",
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> tuple[Tensor, Tensor]:
    """Two moments of what passes in each block of labels: log Σ_j w_ij and log Σ_j w_ij², [blocks, B] each.

    w_ij = σ(α (s_ij + t_i)); where t_i is NaN, w_ij = exp(α s_ij): what sigmoids come to for t towards -∞, in units of
    exp(α t). -inf for a block without labels that count. Blocks are of at most a few hundred labels, which ones is the
    engine's choice; of a shard they are this process's. One pass over the scores; no gradient flows. Positives tell which
    excluded pairs count all the same. Arguments and errors as in `row_statistics`.
    """
    backend = choose_backend(impl, queries)
    if shard is not None:
        positives, _, exclude, label_bias = _inside(shard, queries, labels, positives, exclude, label_bias)
    _check(queries, labels, positives, label_bias, sigmoid.shift, exclude)
    budget = tile_budget(tile_bytes, queries.device)
    problem = Problem(sigmoid, positives, exclude, len(labels), _scale(temperature, queries), budget)
    engine: Any = reference if backend == "reference" else torch_blocks
    if backend == "triton":
        engine = importlib.import_module("xmc.kernels.triton_tiles.blocks")
    with without_autocast(queries):
        found: tuple[Tensor, Tensor] = engine.block_moments(problem, queries, labels, label_bias)
    return found


def _inside(
    shard: LabelShard,
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    exclude: Positives | None,
    label_bias: Tensor | None,
) -> tuple[Positives, Tensor, Positives | None, Tensor | None]:
    """Positives, their positions among all, excluded pairs and bias of the labels that a shard holds."""
    require_positives(positives, "positives")
    positives.check(len(queries), shard.total)
    inside, positions = shard.pairs_inside(positives, len(labels))
    exclude = None if exclude is None else shard.pairs_inside(exclude, len(labels))[0]
    return inside, positions, exclude, None if label_bias is None else label_bias[shard.label_range(len(labels))]


def _engine(backend: str, queries: Tensor) -> ModuleType:
    """The module whose `forward` and `backward` compute."""
    if backend == "triton":
        return importlib.import_module("xmc.kernels.triton_tiles.engine")
    return torch_tiles if queries.device.type == "cpu" else torch_device


def temperature_of(temperature: float | Tensor) -> float:
    """τ as a number; InputError unless it is one positive number."""
    # A Python number has float64's precision, which torch's default dtype would round away.
    dtype = temperature.dtype if isinstance(temperature, Tensor) else torch.float64
    value = torch.as_tensor(temperature, dtype=dtype).detach()
    if value.numel() != 1 or not 0 < float(value) < torch.inf:
        raise InputError(f"temperature must be one positive number, but is {value.tolist()}.")
    return float(value)


def _eight_bit(negatives_dtype: str | None, backend: str) -> bool:
    """Whether the sum is computed from embeddings in eight bits."""
    if negatives_dtype is None:
        return False
    if negatives_dtype != "float8":
        raise ConfigError(f'negatives_dtype must be "float8" or None, but is {negatives_dtype!r}.')
    if backend != "triton":
        raise ConfigError(
            f'negatives_dtype="float8" is of the Triton engine, but this is computed by {backend!r}; leave it out.'
        )
    return True


def _scale(temperature: float | Tensor, queries: Tensor) -> float | Tensor:
    """1/τ as `Problem` has it."""
    if not isinstance(temperature, Tensor) or temperature.device != queries.device or values_are_free(temperature):
        return 1.0 / temperature_of(temperature)
    if temperature.numel() != 1:
        raise InputError(f"temperature must be one positive number, but is of shape {tuple(temperature.shape)}.")
    value = temperature.detach().double().reshape(())
    scale = torch.where((value > 0) & (value < torch.inf), value.reciprocal(), torch.nan)
    return scale.to(torch.promote_types(queries.dtype, torch.float32))


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
    pairs = {"positives": positives} if exclude is None else {"positives": positives, "exclude": exclude}
    for name, given in pairs.items():
        require_positives(given, name)
    tensors = [queries, labels, *(given.indptr for given in pairs.values()), label_bias, shift]
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) != 1:
        raise InputError(f"all tensors must be on one device, not on {sorted(map(str, devices))}.")
    for name, given in pairs.items():
        given.check(len(queries), len(labels), name)
