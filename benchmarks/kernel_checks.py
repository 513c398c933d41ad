"""Correctness of the kernels against float64 on the device where they run, in parts that fit its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from kernel_problems import Size, embeddings, random_positives
from torch import Tensor

from xmc.kernels import losses
from xmc.kernels.positives import Positives
from xmc.kernels.topk import topk_inner_product

__all__ = ["LOSSES", "OPTIONS", "TEMPERATURE", "Check", "check_losses", "check_topk"]

TEMPERATURE = 0.05
LOSSES = (
    "decoupled_softmax",
    "softmax",
    "soft_topk",
    "binary_cross_entropy",
    "multi_label_cluster_discrimination",
)
"""Between them every reduction: log-sum-exp, sigmoid with its thresholds, softplus."""

OPTIONS: dict[str, dict[str, Any]] = {
    "float8": {"negatives_dtype": "float8"},
    "weights kept": {"keep_bytes": 2**34},
    "64 MiB": {"tile_bytes": 2**26},
}
"""Options of the Triton engine that are measured beside the default; nothing is required of their time."""

REFERENCE_SCORES = 2**25
"""Number of float64 scores that are held at once."""

POISON_BYTES = 2**32
"""Device memory that is filled with NaN and freed before a call, so that what a kernel leaves unwritten shows."""

LARGEST_ERROR = {
    "fp32": 1e-4,  # float32 arithmetic stays far below; products in TF32 are at 3e-4
    "bf16": torch.finfo(torch.bfloat16).eps,  # two roundings, of a score's gradient and of the sum, of half of it each
}
"""Largest norm of a gradient's error, relative to the norm of the gradient."""

LARGEST_VALUE_ERROR = 1e-4
"""Largest relative error of a loss: scores and sums are float32 whatever the inputs are."""

FLOAT8_ERRORS = (0.01, 0.1)
"""The same two with sums in float8: an entry is off by a 28th of itself in the mean, a score by a 20th of its spread."""


@dataclass(frozen=True)
class Check:
    """One comparison with float64."""

    what: str
    size: str
    error: float
    limit: float

    @property
    def held(self) -> bool:
        """NaN never passes."""
        return self.error <= self.limit


def check_losses(
    size: Size, engine: str, seed: int, *, extras: bool, names: Sequence[str] = LOSSES, **options: Any
) -> Iterator[Check]:
    """Value and gradients of every loss; with `extras` a label bias, its gradient, and excluded pairs too.

    options: what else the losses are called with; float8 has limits of its own.
    """
    queries, labels, positives = embeddings(size, seed)
    bias = exclude = None
    if extras:
        bias = torch.randn(size.labels, generator=torch.Generator().manual_seed(seed)).to(queries)
        exclude = random_positives(size, seed + 1, 7)
    rough = "negatives_dtype" in options
    limits = FLOAT8_ERRORS if rough else (LARGEST_VALUE_ERROR, LARGEST_ERROR[size.dtype])
    for name in names:
        function = getattr(losses, name)
        exact = _reference(function, queries, labels, bias, positives, exclude)
        inputs = [one.detach().clone().requires_grad_() for one in (queries, labels, bias) if one is not None]
        _poison(size.device)
        given = options | ({"label_bias": inputs[2], "exclude": exclude} if extras else {})
        loss = function(*inputs[:2], positives, TEMPERATURE, impl=engine, **given)
        found = [loss.detach(), *torch.autograd.grad(loss, inputs)]
        for what, one, other in zip(("value", "queries", "labels", "bias"), found, exact, strict=False):
            method = " ".join([engine, name, *options])
            yield Check(f"{method}: {what}", str(size), _relative(one, other), limits[what != "value"])


def check_topk(size: Size, k: int, engine: str, seed: int, *, extras: bool) -> Iterator[Check]:
    """The k labels found are the best ones, but for float32 rounding of scores; with `extras` pairs are excluded.

    The error is the largest of: a returned score's distance from its label's, how far a returned label is below the
    k-th best, and how far one that is not returned is above it. The limit is twice the bound of the rounding of a float32
    sum of D products of unit vectors.
    """
    queries, labels, _ = embeddings(size, seed)
    exclude = random_positives(size, seed + 1, 7) if extras else None
    _poison(size.device)
    scores, rows = topk_inner_product(queries, labels, k, exclude=exclude, impl=engine)
    error, held = 0.0, labels.double().T
    for start, end in _parts(size.queries, size.labels):
        exact = queries[start:end].double() @ held
        if exclude is not None:
            inside = (exclude.rows >= start) & (exclude.rows < end)
            exact[exclude.rows[inside] - start, exclude.indices[inside].long()] = -torch.inf
        error = max(error, _topk_error(exact, scores[start:end], rows[start:end]))
    ordered = bool((scores.diff(dim=1) <= 0).all())
    unique = bool((rows.sort(dim=1).values.diff(dim=1) > 0).all())
    limit = size.dimension * torch.finfo(torch.float32).eps
    yield Check(f"{engine} top-{k}", str(size), error if ordered and unique else torch.inf, limit)


def _topk_error(exact: Tensor, scores: Tensor, rows: Tensor) -> float:
    """See `check_topk`; inf where NaN was returned. exact: [b, L]; scores, rows: [b, k]."""
    chosen, best = exact.gather(1, rows), exact.topk(rows.shape[1], dim=1)
    last = best.values[:, -1:]
    returned = torch.zeros_like(exact, dtype=torch.bool).scatter_(1, rows, True).gather(1, best.indices)
    missed = (best.values - last).masked_fill(returned, 0.0)
    apart = ((scores - chosen).abs().max(), (last - chosen).max(), missed.max())
    return max(float(one.nan_to_num(torch.inf)) for one in apart)


def _reference(
    function: Callable[..., Tensor],
    queries: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    positives: Positives,
    exclude: Positives | None,
) -> list[Tensor]:
    """The loss and the gradients of queries, labels and bias in float64, some queries at a time."""
    inputs = [one.detach().double().requires_grad_() for one in (queries, labels, bias) if one is not None]
    value = torch.zeros((), dtype=torch.float64, device=queries.device)
    for start, end in _parts(len(queries), len(labels)):
        options = {} if exclude is None else {"label_bias": inputs[2], "exclude": _rows(exclude, start, end)}
        loss = function(
            inputs[0][start:end], inputs[1], _rows(positives, start, end), TEMPERATURE, impl="reference", **options
        )
        loss = loss * ((end - start) / len(queries))  # every query has a positive, so that every row counts
        loss.backward()
        value += loss.detach()
    return [value, *(one.grad for one in inputs if one.grad is not None)]


def _parts(queries: int, labels: int) -> list[tuple[int, int]]:
    step = max(1, REFERENCE_SCORES // labels)
    return [(start, min(start + step, queries)) for start in range(0, queries, step)]


def _rows(pairs: Positives, start: int, end: int) -> Positives:
    """The pairs of some queries."""
    indptr = pairs.indptr[start : end + 1]
    return Positives(indptr - indptr[0], pairs.indices[int(indptr[0]) : int(indptr[-1])])


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def _poison(device: str) -> None:
    if device == "cuda":
        torch.full((POISON_BYTES // 4,), torch.nan, device=device)
