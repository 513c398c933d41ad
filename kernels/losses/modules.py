"""Every loss as an nn.Module: its settings are kept, its temperature may be learned."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xmc.errors import InputError
from xmc.kernels.losses.binary_cross_entropy import binary_cross_entropy
from xmc.kernels.losses.cluster_discrimination import multi_label_cluster_discrimination
from xmc.kernels.losses.margins import prototype_regularisation, triplet_margin
from xmc.kernels.losses.rows import Options
from xmc.kernels.losses.soft_topk import soft_topk
from xmc.kernels.losses.softmax import decoupled_softmax, softmax
from xmc.kernels.positives import Positives
from xmc.kernels.statistics import DEFAULT_TILE_BYTES

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "BinaryCrossEntropyLoss",
    "DecoupledSoftmaxLoss",
    "MultiLabelClusterDiscriminationLoss",
    "PrototypeRegularisationLoss",
    "SoftTopKLoss",
    "SoftmaxLoss",
    "TripletMarginLoss",
]


class _StreamingLoss(nn.Module):
    """Settings of a loss over all labels.

    temperature: τ > 0; with `learn_temperature` it is where τ = exp(log_temperature) starts, a parameter of the module.
    tile_bytes, impl: as in `label_statistics`. Called with (queries, labels, positives) and, by name, what else the
    function of the same name takes with each batch.
    """

    def __init__(
        self,
        temperature: float = 0.05,
        *,
        learn_temperature: bool = False,
        tile_bytes: int = DEFAULT_TILE_BYTES,
        impl: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise InputError(f"temperature must be one positive number, but is {temperature}.")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None
        self.initial_temperature, self.tile_bytes, self.impl = temperature, tile_bytes, impl

    @property
    def temperature(self) -> float | Tensor:
        """τ as it is now."""
        return self.initial_temperature if self.log_temperature is None else self.log_temperature.exp()

    def extra_repr(self) -> str:
        """The settings, for print(module)."""
        learned = "" if self.log_temperature is None else ", learned"
        return f"temperature={float(torch.as_tensor(self.temperature).detach()):.4g}{learned}"

    def _options(self, options: Options) -> Options:
        return {"tile_bytes": self.tile_bytes, "impl": self.impl, **options}


class SoftmaxLoss(_StreamingLoss):
    """`softmax` as a module."""

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives,
        *,
        log_inclusion: Tensor | None = None,
        **options: Unpack[Options],
    ) -> Tensor:
        """The loss, a scalar."""
        settings = self._options(options)
        return softmax(queries, labels, positives, self.temperature, log_inclusion=log_inclusion, **settings)


class DecoupledSoftmaxLoss(_StreamingLoss):
    """`decoupled_softmax` as a module."""

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives,
        *,
        log_inclusion: Tensor | None = None,
        **options: Unpack[Options],
    ) -> Tensor:
        """The loss, a scalar."""
        settings = self._options(options)
        return decoupled_softmax(queries, labels, positives, self.temperature, log_inclusion=log_inclusion, **settings)


class MultiLabelClusterDiscriminationLoss(_StreamingLoss):
    """`multi_label_cluster_discrimination` as a module."""

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives,
        *,
        log_inclusion: Tensor | None = None,
        **options: Unpack[Options],
    ) -> Tensor:
        """The loss, a scalar."""
        return multi_label_cluster_discrimination(
            queries, labels, positives, self.temperature, log_inclusion=log_inclusion, **self._options(options)
        )


class BinaryCrossEntropyLoss(_StreamingLoss):
    """`binary_cross_entropy` as a module."""

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives,
        *,
        propensities: Tensor | None = None,
        **options: Unpack[Options],
    ) -> Tensor:
        """The loss, a scalar."""
        settings = self._options(options)
        return binary_cross_entropy(queries, labels, positives, self.temperature, propensities=propensities, **settings)


class SoftTopKLoss(_StreamingLoss):
    """`soft_topk` as a module, of k labels with the slope α."""

    def __init__(
        self,
        temperature: float = 0.05,
        *,
        k: int = 5,
        slope: float = 2.0,
        learn_temperature: bool = False,
        tile_bytes: int = DEFAULT_TILE_BYTES,
        impl: str | None = None,
    ) -> None:
        super().__init__(temperature, learn_temperature=learn_temperature, tile_bytes=tile_bytes, impl=impl)
        self.k, self.slope = k, slope

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        positives: Positives,
        *,
        threshold: Tensor | None = None,
        **options: Unpack[Options],
    ) -> Tensor:
        """The loss, a scalar; `threshold` is read and overwritten."""
        return soft_topk(
            queries,
            labels,
            positives,
            self.temperature,
            k=self.k,
            slope=self.slope,
            threshold=threshold,
            **self._options(options),
        )


class TripletMarginLoss(nn.Module):
    """`triplet_margin` as a module."""

    def __init__(
        self,
        k: int = 10,
        margins: tuple[float, float] = (0.1, 0.3),
        temperature: float = 0.1,
        impl: str | None = None,
    ) -> None:
        super().__init__()
        self.k, self.margins, self.temperature, self.impl = k, margins, temperature, impl

    def forward(
        self, queries: Tensor, labels: Tensor, positives: Positives, *, exclude: Positives | None = None
    ) -> Tensor:
        """The loss, a scalar."""
        return triplet_margin(
            queries,
            labels,
            positives,
            k=self.k,
            margins=self.margins,
            temperature=self.temperature,
            exclude=exclude,
            impl=self.impl,
        )


class PrototypeRegularisationLoss(nn.Module):
    """`prototype_regularisation` as a module."""

    def __init__(self, margin: float = 0.1, k: int = 10, impl: str | None = None) -> None:
        super().__init__()
        self.margin, self.k, self.impl = margin, k, impl

    def forward(
        self,
        queries: Tensor,
        labels: Tensor,
        prototypes: Tensor,
        positives: Positives,
        *,
        exclude: Positives | None = None,
    ) -> Tensor:
        """The loss, a scalar."""
        return prototype_regularisation(
            queries, labels, prototypes, positives, margin=self.margin, k=self.k, exclude=exclude, impl=self.impl
        )
