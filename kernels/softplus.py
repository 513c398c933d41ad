"""Softplus that is exact to rounding in float64 as well."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["softplus"]

LINEAR_FROM = 40.0
"""Softplus of a larger x is x itself in float64. torch's own limit of 20 is off by e⁻²⁰ = 2·10⁻⁹ there, in the gradient too."""


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) of each element, in the dtype of x; differentiable."""
    return functional.softplus(x, threshold=LINEAR_FROM)
