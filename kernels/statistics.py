"""The streaming primitive: the row statistics of the scores that every softmax loss is a formula over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels import reference, torch_tiles
from xmc.kernels.dispatch import choose_backend
from xmc.kernels.positives import Positives

__all__ = ["DEFAULT_TILE_BYTES", "Positives", "label_statistics"]

DEFAULT_TILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class _Problem:
    """The arguments of one call that are not differentiated."""

    positives: Positives
    tile_bytes: int


class _LabelStatistics(torch.autograd.Function):
    """Forward and backward over tiles. With s_ij = q_i·z_j / τ + o_j, the gradient of the score is

    dS_ij = dN_i · exp(s_ij - N_i) for a negative j, and the incoming gradient for a positive;
    then dQ = dS·Z / τ, dZ = dSᵀ·Q / τ, do_j = Σ_i dS_ij, and dτ = -Σ_i ⟨q_i, dq_i⟩ / τ without another pass.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, labels: Tensor, temperature: Tensor, label_offsets: Tensor | None, problem: _Problem
    ) -> tuple[Tensor, Tensor]:
        scale = 1.0 / float(temperature)
        negative_logsumexp, positive_scores, saved = torch_tiles.forward(
            queries, labels, problem.positives, scale, label_offsets, problem.tile_bytes, any(ctx.needs_input_grad)
        )
        ctx.problem, ctx.scale = problem, scale
        ctx.save_for_backward(
            queries, labels, temperature, label_offsets, negative_logsumexp, saved.scores, saved.softmax_labels
        )
        return negative_logsumexp, positive_scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        queries, labels, temperature, label_offsets, negative_logsumexp, scores, softmax_labels = ctx.saved_tensors
        query_gradient, label_gradient, offset_gradient = torch_tiles.backward(
            queries,
            labels,
            ctx.problem.positives,
            ctx.scale,
            label_offsets,
            ctx.problem.tile_bytes,
            torch_tiles.Saved(negative_logsumexp, scores, softmax_labels),
            *gradients,
        )
        temperature_gradient = None
        if ctx.needs_input_grad[2]:
            inner = torch.linalg.vecdot(queries.to(query_gradient.dtype), query_gradient).sum()
            temperature_gradient = (-inner * ctx.scale).to(temperature.dtype).reshape(temperature.shape)
        if offset_gradient is not None and label_offsets is not None:
            offset_gradient = offset_gradient.to(label_offsets.dtype)
        return (
            query_gradient.to(queries.dtype),
            label_gradient.to(labels.dtype),
            temperature_gradient,
            offset_gradient,
            None,
        )


def label_statistics(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 1.0,
    *,
    label_offsets: Tensor | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    impl: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each query's negatives, and the scores of its positives, with s_ij = q_i·z_j / τ + o_j.

    N_i = log Σ_{j ∉ P_i} exp(s_ij) and s_ip for p ∈ P_i. The B x L scores are never held: extra memory is
    O((B + L)·D + nnz) and one tile. Where all scores fit one tile, it is kept for the backward pass.

    Parameters
    ----------
    queries: [B, D], labels: [L, D]; float16, bfloat16, float32 or float64, of one dtype and device.
    positives: B rows of label positions in [0, L).
    temperature: τ > 0, a number or a tensor of one element (learned).
    label_offsets: optional [L], added to every score of that label, in whichever role.
    tile_bytes: largest size of the score tile, in bytes.
    impl: "torch" or "reference"; by default the environment variable XMC_KERNELS, else "torch".

    Returns
    -------
    negative_logsumexp [B] (-inf for a row without negatives) and positive_scores [nnz] in the order of
    `positives.indices`; float32, or float64 for float64 input and for the reference. Differentiable in queries, labels,
    temperature and label_offsets.

    Raises
    ------
    InputError: shapes, dtypes or devices that do not fit, a label position out of range, or τ that is not positive.
    ConfigError: an unknown backend.
    """
    backend = choose_backend(impl)
    _check(queries, labels, positives, label_offsets)
    temperature = torch.as_tensor(temperature, dtype=torch.promote_types(queries.dtype, torch.float32))
    if temperature.numel() != 1 or not float(temperature.detach()) > 0:
        raise InputError(f"temperature must be one positive number, but is {temperature.detach().tolist()}.")
    if backend == "reference":
        return reference.label_statistics(queries, labels, positives, temperature, label_offsets)
    problem = _Problem(positives, tile_bytes)
    statistics: tuple[Tensor, Tensor] = _LabelStatistics.apply(  # type: ignore[no-untyped-call]
        queries, labels, temperature, label_offsets, problem
    )
    return statistics


def _check(queries: Tensor, labels: Tensor, positives: Positives, label_offsets: Tensor | None) -> None:
    if queries.dim() != 2 or labels.dim() != 2 or queries.shape[1] != labels.shape[1]:
        raise InputError(
            f"queries [B, D] and labels [L, D] must be matrices with the same D, "
            f"but have the shapes {tuple(queries.shape)} and {tuple(labels.shape)}."
        )
    if queries.dtype != labels.dtype or not queries.is_floating_point():
        raise InputError(f"queries and labels must have one floating dtype, not {queries.dtype} and {labels.dtype}.")
    devices = {queries.device, labels.device, positives.indptr.device, positives.indices.device}
    if len(devices) != 1:
        raise InputError(f"queries, labels and positives must be on one device, not on {sorted(map(str, devices))}.")
    if label_offsets is not None and label_offsets.shape != (len(labels),):
        raise InputError(f"label_offsets must have shape ({len(labels)},), not {tuple(label_offsets.shape)}.")
    positives.check(len(queries), len(labels))
