"""What a row of scores is reduced to: a file for each reduction, with its forward, combination, gradient and reference."""

from __future__ import annotations

from xmc.kernels.reductions.log_sum_exp import LogSumExp
from xmc.kernels.reductions.reduction import REDUCTIONS, Combined, Reduction, Sums
from xmc.kernels.reductions.sigmoid import Sigmoid
from xmc.kernels.reductions.softplus import Softplus

__all__ = ["REDUCTIONS", "Combined", "LogSumExp", "Reduction", "Sigmoid", "Softplus", "Sums"]
