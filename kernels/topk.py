"""Exact top-k inner product search, streaming: tiles of scores, a running best, no B x L matrix."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from xmc.errors import InputError, NotFiniteError
from xmc.kernels import reference, torch_topk
from xmc.kernels.devices import without_autocast
from xmc.kernels.dispatch import choose_backend
from xmc.kernels.positives import Positives, require_positives

__all__ = ["topk_inner_product", "topk_unchecked"]


@torch.no_grad()
def topk_inner_product(
    queries: Tensor,
    labels: Tensor,
    k: int,
    *,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: int | None = None,
    impl: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The k labels of largest inner product with each query, exact, best first, ties by the lower index.

    Parameters
    ----------
    queries: [B, D], labels: [L, D], floating, on one device. Scores q_i·z_j + b_j are summed up and returned in float32, or
        in float64 where either is float64, under autocast too; no gradient flows through them.
    k: at least 0; k' = min(k, L) labels are returned.
    label_bias: optional [L], b.
    exclude: labels never returned for a query, B rows of label positions in the form of a query's positives.
    tile_bytes: largest size of a tile of scores, by default one that a cache holds: 8 MiB with torch, 32 MiB with Triton. Extra
        memory is some such tiles and O(B·k). The Triton engine holds up to 1 GiB besides: of each query the best scores of
        groups of labels, and the labels of the best groups. It has tiles only for exact float32 and for two dtypes, of at
        least 128 labels of as many queries as that gigabyte is for.
    impl: "triton", "torch" or "reference"; by default the environment variable XMC_KERNELS, else Triton on CUDA and torch
        elsewhere.

    Returns scores [B, k'] and indices int64 [B, k']; where too few labels are left for a query, its row ends with score -inf
    and index -1.

    Raises InputError for shapes, dtypes or devices that do not fit, a negative k or a malformed `exclude`, and NotFiniteError,
    an InputError, for NaN among the scores; ConfigError for an unknown backend, or one that cannot compute this.
    """
    scores, indices = topk_unchecked(
        queries, labels, k, label_bias=label_bias, exclude=exclude, tile_bytes=tile_bytes, impl=impl
    )
    if bool(scores.isnan().any()):
        raise NotFiniteError("queries or labels hold NaN, or infinities that cancel, which cannot be ranked.")
    return scores, indices


@torch.no_grad()
def topk_unchecked(
    queries: Tensor,
    labels: Tensor,
    k: int,
    *,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: int | None = None,
    impl: str | None = None,
) -> tuple[Tensor, Tensor]:
    """`topk_inner_product` for a loss, whose scores are not asked for NaN: where there is any, some scores are NaN."""
    if queries.dim() != 2 or labels.dim() != 2 or queries.shape[1] != labels.shape[1]:
        raise InputError(
            f"queries [B, D] and labels [L, D] must be matrices with the same D, "
            f"but have the shapes {tuple(queries.shape)} and {tuple(labels.shape)}."
        )
    if not (queries.is_floating_point() and labels.is_floating_point()) or queries.device != labels.device:
        raise InputError(
            f"queries and labels must be floating and on one device, "
            f"but are {queries.dtype} on {queries.device} and {labels.dtype} on {labels.device}."
        )
    if k < 0:
        raise InputError(f"k must be at least 0, but is {k}.")
    if label_bias is not None and label_bias.shape != (len(labels),):
        raise InputError(f"label_bias must have shape ({len(labels)},), not {tuple(label_bias.shape)}.")
    if exclude is not None:
        require_positives(exclude, "exclude")
        exclude = exclude.to(queries.device)
        exclude.check(len(queries), len(labels), "exclude")
    k = min(k, len(labels))
    backend = choose_backend(impl, queries if queries.dtype == torch.float64 else labels)
    if backend == "reference":
        scores, indices = reference.topk_inner_product(queries, labels, k, label_bias, exclude)
    else:
        engine = torch_topk if backend == "torch" else importlib.import_module("xmc.kernels.triton_tiles.topk")
        with without_autocast(queries):
            scores, indices = engine.topk(queries, labels, k, label_bias, exclude, tile_bytes)
    return scores, indices
