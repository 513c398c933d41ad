"""Matrix products of low precision whose sums, and results, are of float32."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["add_product", "product", "sum_dtype"]


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which products of `dtype` are summed up: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def product(left: Tensor, right: Tensor, *, scale: float = 1.0, out: Tensor | None = None) -> Tensor:
    """scale · left @ right of [n, d] and [d, m], summed up and returned in `sum_dtype`, [n, m].

    out: optional buffer for the result. On CUDA float16 and bfloat16 are multiplied as they are, at the rate of their dtype.
    The factor costs no pass of its own.
    """
    if out is None:
        out = left.new_empty((len(left), right.shape[1]), dtype=sum_dtype(left.dtype))
    return _multiply(out, left, right, beta=0.0, alpha=scale)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add left @ right of [n, d] and [d, m] to a total [n, m] of their `sum_dtype`, in place."""
    return _multiply(total, left, right, beta=1.0, alpha=1.0)


def _multiply(total: Tensor, left: Tensor, right: Tensor, beta: float, alpha: float) -> Tensor:
    if left.dtype == total.dtype:
        return torch.addmm(total, left, right, beta=beta, alpha=alpha, out=total)
    if left.device.type != "cpu":
        return torch.addmm(total, left, right, out_dtype=total.dtype, beta=beta, alpha=alpha, out=total)
    return torch.addmm(total, left.to(total.dtype), right.to(total.dtype), beta=beta, alpha=alpha, out=total)
