"""Losses over all labels, as formulas on the streaming row statistics: functions, and modules of the same arguments."""

from __future__ import annotations

from xmc.kernels.losses.binary_cross_entropy import binary_cross_entropy
from xmc.kernels.losses.cluster_discrimination import multi_label_cluster_discrimination
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
    "BinaryCrossEntropyLoss",
    "DecoupledSoftmaxLoss",
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
