"""A loss from outside of the package: the squared distance of scores from 1 for positives and from -1 for all other labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from xmc.config import LOSS_SECTIONS, LossConfig
from xmc.kernels.losses import LOSSES, Loss
from xmc.kernels.positives import Positives


class ToySquaresConfig(LossConfig):
    """Keys of the loss "toy_squares"."""

    kind: Literal["toy_squares"] = "toy_squares"
    """Squared distances."""
    weight: float = 4.0
    """Weight of a positive beside a negative."""


def toy_squares(
    queries: Tensor, labels: Tensor, positives: Positives, *, weight: float = 4.0, exclude: Positives | None = None
) -> Tensor:
    """The mean over queries of the mean over labels; excluded pairs count nowhere."""
    scores = queries @ labels.T
    counts = torch.ones_like(scores)
    wanted = torch.full_like(scores, -1.0)
    wanted[positives.rows, positives.indices.long()] = 1.0
    counts[positives.rows, positives.indices.long()] = weight
    if exclude is not None:
        counts[exclude.rows, exclude.indices.long()] = 0.0
    return (counts * (scores - wanted).square()).mean()


LOSS_SECTIONS.register("toy_squares", ToySquaresConfig)
LOSSES.register("toy_squares", Loss(toy_squares, takes_temperature=False, splits_labels=False))
