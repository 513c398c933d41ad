"""Losses over all labels, formulas on the streaming row statistics: functions, the same by name, and as modules."""

from __future__ import annotations

from xmc.kernels.losses.binary_cross_entropy import binary_cross_entropy
from xmc.kernels.losses.cluster_discrimination import multi_label_cluster_discrimination
from xmc.kernels.losses.loss import LOSSES, Loss
from xmc.kernels.losses.margins import prototype_regularisation, triplet_margin
from xmc.kernels.losses.modules import (
    BinaryCrossEntropyLoss,
    DecoupledSoftmaxLoss,
    MultiLabelClusterDiscriminationLoss,
    PrototypeRegularisationLoss,
    SoftmaxLoss,
    SoftTopKLoss,
    TripletMarginLoss,
)
from xmc.kernels.losses.soft_topk import soft_topk
from xmc.kernels.losses.softmax import decoupled_softmax, softmax
from xmc.kernels.positives import Positives

__all__ = [
    "LOSSES",
    "BinaryCrossEntropyLoss",
    "DecoupledSoftmaxLoss",
    "Loss",
    "MultiLabelClusterDiscriminationLoss",
    "Positives",
    "PrototypeRegularisationLoss",
    "SoftTopKLoss",
    "SoftmaxLoss",
    "TripletMarginLoss",
    "binary_cross_entropy",
    "decoupled_softmax",
    "multi_label_cluster_discrimination",
    "prototype_regularisation",
    "soft_topk",
    "softmax",
    "triplet_margin",
]
