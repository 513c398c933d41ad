"""Label propensities of Jain et al. (KDD 2016): how likely a true label is to have been recorded."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from xmc.errors import InputError

__all__ = ["propensities", "propensity_parameters"]

# WikiSeeAlso and Wiki10-31K are published with the default parameters, not with those of Wikipedia.
_WIKIPEDIA = re.compile(r"wikipedia|wikilshtc|wikititles|wiki-?500k", re.IGNORECASE)
_AMAZON = re.compile(r"amazon", re.IGNORECASE)


def propensity_parameters(dataset_name: str) -> tuple[float, float]:
    """A and B with which the field publishes results on a data set, from its name.

    Wikipedia, WikiTitles and WikiLSHTC have (0.5, 0.4), everything of Amazon (0.6, 2.6), all else (0.55, 1.5).

    >>> propensity_parameters("LF-AmazonTitles-131K"), propensity_parameters("LF-WikiSeeAlso-320K")
    ((0.6, 2.6), (0.55, 1.5))
    """
    if _AMAZON.search(dataset_name):
        return 0.6, 2.6
    if _WIKIPEDIA.search(dataset_name):
        return 0.5, 0.4
    return 0.55, 1.5


def propensities(counts: npt.NDArray[np.integer], queries: int, A: float, B: float) -> npt.NDArray[np.float64]:
    """Propensity of each label, float64 [L], from its number of training queries (Jain et al. 2016, section 4).

    p_l = 1 / (1 + C exp(-A log(N_l + B))),  C = (log N - 1)(B + 1)^A

    Parameters
    ----------
    counts: integers [L], N_l, the training queries of each label.
    queries: N, all training queries. For N < e the formula has C < 0 and no meaning; C = 0 (p = 1) is used.

    Raises InputError for counts that are negative or greater than N, for N < 1, and for A or B that are not positive.
    """
    counts = np.asarray(counts)
    if queries < 1:
        raise InputError(f"Propensities need the number of training queries, at least 1, not {queries}.")
    if A <= 0 or B <= 0:
        raise InputError(f"The propensity parameters A and B must be positive, but are {A} and {B}.")
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"Training counts must be integers [L], not {counts.dtype} {list(counts.shape)}.")
    if counts.size and not 0 <= counts.min() <= counts.max() <= queries:
        label = int(np.flatnonzero((counts < 0) | (counts > queries))[0])
        raise InputError(
            f"Label {label} has {counts[label]} training queries, which is not between 0 and all {queries} of them."
        )
    scale = max(np.log(queries) - 1, 0.0) * (B + 1) ** A
    return np.asarray(1 / (1 + scale * (counts + float(B)) ** -A), np.float64)
