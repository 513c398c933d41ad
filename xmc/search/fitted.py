"""On what queries a stage of search was fitted, so that nothing is judged on them that must not be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xmc.arrays import Mask
from xmc.calibration.candidates import draws
from xmc.errors import InputError

__all__ = ["FittedOn"]

FITTING_STREAM = 7
"""Seed of the draw that says which queries of a split a stage is fitted on: another one than those of calibration."""


@dataclass(frozen=True)
class FittedOn:
    """The queries that a stage was fitted on: those of a split whose uids draw a number below a share.

    fingerprint: of the data set. split: of the data set, or "validation" or "calibration" for what training kept aside.
    share: in (0, 1]; InputError for another one.
    """

    fingerprint: str
    split: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError(f"The share of queries to fit on must lie in (0, 1], but is {self.share}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FittedOn:
        """What `to_dict` gave. KeyError, TypeError or InputError for anything else."""
        return cls(str(values["fingerprint"]), str(values["split"]), float(values["share"]))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def among(self, uids: list[str | None]) -> Mask:
        """Which queries of the split the stage was fitted on, by their uids: bool [n]."""
        if self.share == 1:
            return np.ones(len(uids), bool)
        return draws(uids, FITTING_STREAM) < self.share
