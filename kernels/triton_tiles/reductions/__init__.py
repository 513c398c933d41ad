"""Device functions of the reductions, a module for each: `reduce_tile` and `score_gradient`, of one signature.

Scores come times the reduction's `unit`, slope · log2(e), so that an exponential is one of base 2.
`reduce_tile(scores, shift)` is a row's part of the value and of its derivative, [ROWS] each, of a tile of scores
[ROWS, LABELS], where -inf counts nothing; `shift` [ROWS]. A log-sum-exp is one of base 2, a derivative one in the scores as
they come; a reduction without a derivative gives the value twice.
`score_gradient(scores, constant)` is f'(s_ij) / slope, [ROWS, LABELS], with the reduction's `row_constant` [ROWS].
"""

from __future__ import annotations

import importlib
from types import ModuleType

from xmc.errors import ConfigError
from xmc.kernels.reductions import Reduction

__all__ = ["device_functions"]


def device_functions(reduction: Reduction) -> ModuleType:
    """The module of a reduction's device functions; ConfigError for a reduction that has none."""
    if reduction.device_module is None:
        raise ConfigError(
            f"{type(reduction).__name__} has no device functions for Triton; compute it with impl='torch'."
        )
    return importlib.import_module(reduction.device_module)
