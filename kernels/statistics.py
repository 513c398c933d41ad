"""The row statistics that losses are formulas over: log-sum-exp, sums of sigmoids, sums of softplus."""

from __future__ import annotations

import torch
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.budget import TileBytes
from xmc.kernels.positives import Positives
from xmc.kernels.reductions import LogSumExp, Sigmoid, Softplus
from xmc.kernels.row_statistics import row_statistics
from xmc.kernels.shards import LabelShard

__all__ = [
    "Positives",
    "label_sigmoid_sums",
    "label_statistics",
    "row_statistics",
    "sigmoid_statistics",
    "softplus_sum",
]


def label_statistics(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    temperature: float | Tensor = 1.0,
    *,
    label_bias: Tensor | None = None,
    log_inclusion: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: TileBytes = "auto",
    keep_bytes: int = 0,
    negatives_dtype: str | None = None,
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
    tile_bytes: largest size of the tile of scores, in bytes; "auto": see xmc.kernels.budget.
    keep_bytes: bytes that the Triton engine may take to keep weights of scores from the forward to the backward pass, which
        saves their product there: 2·D flops a score for 6 bytes of traffic, so it pays for large D. Others keep nothing.
    negatives_dtype: "float8" to compute the sum from embeddings in float8 e4m3 with one scale a row, on the Triton engine: an
        approximation, of the value and of its gradients, in which scores are off by some percent of a standard deviation;
        the positives' own scores and gradients stay exact. None for the inputs' dtype.
    impl: "triton", "torch" or "reference"; by default the environment variable XMC_KERNELS, else Triton on CUDA and torch
        elsewhere.
    shard: where labels are split over processes, the range of labels that is given here; see xmc.kernels.shards.

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
    What is on a GPU is not asked for its values, which would wait for it: NaN there, and a τ there that is not positive, make
    the result NaN.
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
        keep_bytes=keep_bytes,
        negatives_dtype=negatives_dtype,
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
    tile_bytes: TileBytes = "auto",
    keep_bytes: int = 0,
    negatives_dtype: str | None = None,
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum over all labels of σ(α (s_ij + t_i)), and its derivative in t_i, with s_ij = q_i·z_j / τ + b_j.

    shift: t [B]. scale: α > 0. Everything else as in `label_statistics`, with its errors.

    Returns (sum [B], derivative [B]). The sum is differentiable, once, in queries, labels, shift, temperature and
    label_bias; the derivative is not.
    Source: Gupta et al., Dual-encoders for Extreme Multi-label Classification, ICLR 2024, section 4.3.
    """
    total, derivative, _ = row_statistics(
        Sigmoid(shift, scale),
        queries,
        labels,
        Positives.none(len(queries), queries.device),
        temperature,
        label_bias=label_bias,
        exclude=exclude,
        tile_bytes=tile_bytes,
        keep_bytes=keep_bytes,
        negatives_dtype=negatives_dtype,
        impl=impl,
        shard=shard,
    )
    return total, derivative


def label_sigmoid_sums(
    queries: Tensor,
    labels: Tensor,
    label_temperatures: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    label_bias: Tensor | None = None,
    tile_bytes: TileBytes = "auto",
    keep_bytes: int = 0,
    negatives_dtype: str | None = None,
    impl: str | None = None,
) -> Tensor:
    """Sum over the queries of σ(s_ij / T_j) for each label, [L], with s_ij = q_i·z_j / τ + b_j.

    The sum runs over the batch and not over the labels: `sigmoid_statistics` with the sides exchanged. The B x L scores are
    never held. label_temperatures: T > 0, floating [L] on the labels' device; None for ones. Differentiable, once, in queries,
    labels, label_temperatures, temperature and label_bias. Other arguments and errors as in `label_statistics`; InputError also
    for label_temperatures or label_bias of another shape.

    >>> import torch
    >>> label_sigmoid_sums(torch.zeros(4, 2), torch.ones(3, 2))
    tensor([2., 2., 2.])
    """
    for name, values in (("label_temperatures", label_temperatures), ("label_bias", label_bias)):
        if values is not None and values.shape != labels.shape[:1]:
            raise InputError(f"{name} must have shape ({len(labels)},), not {tuple(values.shape)}.")
    shift = labels.new_zeros(len(labels), dtype=torch.promote_types(labels.dtype, torch.float32))
    if label_bias is not None:
        shift = label_bias.to(shift)
    if label_temperatures is not None:
        shift = shift / label_temperatures
        labels = (labels / label_temperatures.to(shift)[:, None]).to(labels.dtype)
    total, _ = sigmoid_statistics(
        labels,
        queries,
        shift,
        temperature=temperature,
        tile_bytes=tile_bytes,
        keep_bytes=keep_bytes,
        negatives_dtype=negatives_dtype,
        impl=impl,
    )
    return total


def softplus_sum(
    queries: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    label_bias: Tensor | None = None,
    exclude: Positives | None = None,
    tile_bytes: TileBytes = "auto",
    keep_bytes: int = 0,
    negatives_dtype: str | None = None,
    impl: str | None = None,
    shard: LabelShard | None = None,
) -> Tensor:
    """Sum over all labels of log(1 + exp(s_ij)), [B], with s_ij = q_i·z_j / τ + b_j.

    Differentiable, once, in queries, labels, temperature and label_bias. Arguments and errors as in `label_statistics`.
    """
    total, _, _ = row_statistics(
        Softplus(),
        queries,
        labels,
        Positives.none(len(queries), queries.device),
        temperature,
        label_bias=label_bias,
        exclude=exclude,
        tile_bytes=tile_bytes,
        keep_bytes=keep_bytes,
        negatives_dtype=negatives_dtype,
        impl=impl,
        shard=shard,
    )
    return total
