"""Every loss as an nn.Module: its settings are kept, its temperature may be learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xmc.errors import InputError
from xmc.kernels.losses.binary_cross_entropy import binary_cross_entropy
from xmc.kernels.losses.cluster_discrimination import multi_label_cluster_discrimination
from xmc.kernels.losses.loss import require_settings
from xmc.kernels.losses.margins import prototype_regularisation, triplet_margin
from xmc.kernels.losses.soft_topk import soft_topk
from xmc.kernels.losses.softmax import decoupled_softmax, softmax
from xmc.kernels.positives import Positives

__all__ = [
    "BinaryCrossEntropyLoss",
    "DecoupledSoftmaxLoss",
    "MultiLabelClusterDiscriminationLoss",
    "PrototypeRegularisationLoss",
    "SoftTopKLoss",
    "SoftmaxLoss",
    "TripletMarginLoss",
]


class _Loss(nn.Module):
    """A loss function with settings: what it takes by name, here or with each batch.

    Called with (queries, labels, positives) as the function is; a name given with a batch goes before the setting.
    Raises InputError for a setting that the function does not have.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        require_settings(type(self).__name__, type(self).function, settings)
        self.settings = settings

    def forward(self, *tensors: Any, **options: Any) -> Tensor:
        """The loss, a scalar."""
        return type(self).function(*tensors, **{**self.settings, **options})

    def extra_repr(self) -> str:
        """The settings, for print(module)."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


class _LossOverLabels(_Loss):
    """A loss over all labels, with a temperature.

    temperature: τ > 0; with `learn_temperature` it is where τ = exp(log_temperature) starts, a parameter of the module.
    settings: tile_bytes, keep_bytes, impl, label_bias and so on, as in the function.
    """

    def __init__(self, temperature: float = 0.05, *, learn_temperature: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        if not 0 < temperature < math.inf:
            raise InputError(f"temperature must be one positive number, but is {temperature}.")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None
        self.initial_temperature = temperature

    @property
    def temperature(self) -> float | Tensor:
        """τ as it is now."""
        return self.initial_temperature if self.log_temperature is None else self.log_temperature.exp()

    def forward(self, queries: Tensor, labels: Tensor, positives: Positives, **options: Any) -> Tensor:
        """The loss, a scalar."""
        return super().forward(queries, labels, positives, self.temperature, **options)

    def extra_repr(self) -> str:
        """The settings, for print(module)."""
        learned = "" if self.log_temperature is None else " (learned)"
        shown = f"temperature={float(torch.as_tensor(self.temperature).detach()):.4g}{learned}"
        return ", ".join(part for part in (shown, super().extra_repr()) if part)


class SoftmaxLoss(_LossOverLabels):
    """`softmax` as a module."""

    function = staticmethod(softmax)


class DecoupledSoftmaxLoss(_LossOverLabels):
    """`decoupled_softmax` as a module."""

    function = staticmethod(decoupled_softmax)


class MultiLabelClusterDiscriminationLoss(_LossOverLabels):
    """`multi_label_cluster_discrimination` as a module."""

    function = staticmethod(multi_label_cluster_discrimination)


class BinaryCrossEntropyLoss(_LossOverLabels):
    """`binary_cross_entropy` as a module."""

    function = staticmethod(binary_cross_entropy)


class SoftTopKLoss(_LossOverLabels):
    """`soft_topk` as a module; k and slope are settings, a `threshold` comes with each batch."""

    function = staticmethod(soft_topk)


class TripletMarginLoss(_Loss):
    """`triplet_margin` as a module."""

    function = staticmethod(triplet_margin)


class PrototypeRegularisationLoss(_Loss):
    """`prototype_regularisation` as a module; called with (queries, labels, prototypes, positives)."""

    function = staticmethod(prototype_regularisation)
