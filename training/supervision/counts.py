"""Which of some pairs are true, given how many of them are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.arrays import Rows

__all__ = ["count_posteriors", "group_posteriors"]

IMPOSSIBLE = -1e30
"""Log weight of a number that cannot be: finite, so that its gradient is."""
NUMBERS_AT_ONCE = 4_000_000
"""Number of float64 that the sums of one chunk of groups hold."""


def count_posteriors(log_odds: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """P(y_i = 1 | least <= Σ y <= most) of independent y_i with some log odds, for each of m groups: float64 [m, n].

    log_odds: [m, n]; -inf for a place that a smaller group does not fill. least, most: int64 [m].

    The sum over all choices of c of the n is the elementary symmetric polynomial e_c of the odds, and what is sought is the
    gradient of log Σ_c e_c, c from least to most, with respect to the log odds. For a count of one it is their softmax, so
    that what all members have in common cancels (the count case of Chen et al., "A General Framework for Learning from Weak
    Supervision", 2024). A group whose count cannot be met gets the nearest one that can.

    >>> count_posteriors(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([1]), torch.tensor([1])).round(decimals=3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    filled = log_odds > -torch.inf
    size = filled.sum(1)
    least, most = torch.minimum(least.clamp_min(0), size), torch.minimum(most, size)
    if not log_odds.numel():
        return log_odds.double()
    highest = int(most.max())
    with torch.enable_grad():
        odds = log_odds.detach().double().clamp(IMPOSSIBLE, -IMPOSSIBLE).requires_grad_()
        sums = odds.new_full((len(odds), highest + 1), IMPOSSIBLE)
        sums[:, 0] = 0.0
        for place in range(odds.shape[1]):
            more = torch.nn.functional.pad(sums[:, :-1] + odds[:, place, None], (1, 0), value=IMPOSSIBLE)
            sums = torch.where(filled[:, place, None], torch.logaddexp(sums, more), sums)
        counts = torch.arange(highest + 1)
        wanted = (counts >= least[:, None]) & (counts <= most[:, None])
        total = torch.where(wanted, sums, IMPOSSIBLE).logsumexp(1).sum()
        (posterior,) = torch.autograd.grad(total, odds)
    return posterior.clamp(0.0, 1.0)


def group_posteriors(
    log_odds: npt.NDArray[np.float64], indptr: Rows, least: npt.NDArray[np.floating], most: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """`count_posteriors` of groups as compressed rows: those of group g are [indptr[g], indptr[g + 1]). float64 [n].

    least, most: [m]; numbers between two whole ones, such as a share of a group times its size, are shared between these.
    """
    result = np.zeros(len(log_odds))
    sizes = np.diff(indptr)
    for size in np.unique(sizes[sizes > 0]):
        groups = np.flatnonzero(sizes == size)
        at_once = max(1, int(NUMBERS_AT_ONCE // (int(size) * (float(most[groups].max()) + 2))))
        for some in np.array_split(groups, -(-len(groups) // at_once)):
            places = indptr[some][:, None] + np.arange(size)
            odds = torch.from_numpy(log_odds[places])
            below, share = np.floor(most[some]), most[some] - np.floor(most[some])
            lowest = np.ceil(least[some])
            posterior = _between(odds, np.minimum(lowest, below), below)
            fractional = share > 1e-6
            if fractional.any():
                one_more = _between(odds, np.where(lowest > below, below + 1, lowest), below + 1)
                posterior += np.where(fractional, share, 0.0)[:, None] * (one_more - posterior)
            result[places] = posterior
    return result


def _between(odds: Tensor, least: npt.NDArray[np.floating], most: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    counted = count_posteriors(odds, torch.from_numpy(least).long(), torch.from_numpy(most).long())
    values: npt.NDArray[np.float64] = counted.numpy()
    return values
