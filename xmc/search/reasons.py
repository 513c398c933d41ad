"""Why a label was given: what stages of a search say of it, with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Reason", "Reasons", "in_words", "joined_reasons"]


@dataclass(frozen=True)
class Reason:
    """One thing that speaks for a label, or against it.

    kind: what it is, such as "neighbour" or "word". value: its share of the label's score, where the kind is a part of the
    score; else a similarity. text: of the neighbour, the passage or the label. uid: its uid, where it has one.
    """

    kind: str
    value: float
    text: str = ""
    uid: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without the uid where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}


Reasons: TypeAlias = npt.NDArray[np.object_]
"""For each query and candidate a tuple of `Reason`s, or None; object [n, m]."""


def joined_reasons(first: Reasons | None, second: Reasons) -> Reasons:
    """What two stages say of the same candidates, the earlier stage first."""
    if first is None:
        return second
    joined = np.empty(second.shape, object)
    for place in np.ndindex(second.shape):
        said = (*(first[place] or ()), *(second[place] or ()))
        joined[place] = said or None
    return joined


def in_words(reasons: Sequence[Reason]) -> str:
    """Reasons in one line; what is no word has its kind before it.

    >>> in_words([Reason("word", 0.45, "boat"), Reason("label", -0.2, "dog", "n1")])
    "boat +0.45, label 'dog' -0.20"
    """
    named = [reason.text if reason.kind.startswith("word") else f"{reason.kind} {reason.text!r}" for reason in reasons]
    return ", ".join(f"{name} {reason.value:+.2f}" for name, reason in zip(named, reasons, strict=True))
