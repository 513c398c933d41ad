"""The configuration: sections whose keys are explained where they stand, checked when they are made."""

from __future__ import annotations

from xmc.config.checkpoint import CheckpointConfig
from xmc.config.data import BagsConfig, DataConfig
from xmc.config.encoders import (
    ENCODER_SECTIONS,
    EncoderConfig,
    ImagesConfig,
    LoRAConfig,
    StaticConfig,
    TransformerConfig,
)
from xmc.config.kinds import Family
from xmc.config.label_vectors import (
    LABEL_VECTOR_SECTIONS,
    LabelVectorsConfig,
    NoVectorsConfig,
    PrototypesConfig,
    ResidualConfig,
)
from xmc.config.losses import (
    LOSS_SECTIONS,
    BinaryCrossEntropyConfig,
    DecoupledSoftmaxConfig,
    LossConfig,
    MultiLabelClusterDiscriminationConfig,
    SoftmaxConfig,
    SoftTopkConfig,
    TripletMarginConfig,
)
from xmc.config.negatives import (
    NEGATIVES_SECTIONS,
    AllConfig,
    BankConfig,
    ClustersConfig,
    InBatchConfig,
    NegativesConfig,
    SampledConfig,
    ShortlistConfig,
)
from xmc.config.objective import DistillationConfig, ObjectiveConfig
from xmc.config.optimizer import LearningRates, OptimizerConfig
from xmc.config.section import KindSection, Section
from xmc.config.supervision import SupervisionConfig
from xmc.config.training import TrainConfig
from xmc.config.validation import ValidationConfig

__all__ = [
    "ENCODER_SECTIONS",
    "LABEL_VECTOR_SECTIONS",
    "LOSS_SECTIONS",
    "NEGATIVES_SECTIONS",
    "AllConfig",
    "BagsConfig",
    "BankConfig",
    "BinaryCrossEntropyConfig",
    "CheckpointConfig",
    "ClustersConfig",
    "DataConfig",
    "DecoupledSoftmaxConfig",
    "DistillationConfig",
    "EncoderConfig",
    "Family",
    "ImagesConfig",
    "InBatchConfig",
    "KindSection",
    "LabelVectorsConfig",
    "LearningRates",
    "LoRAConfig",
    "LossConfig",
    "MultiLabelClusterDiscriminationConfig",
    "NegativesConfig",
    "NoVectorsConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PrototypesConfig",
    "ResidualConfig",
    "SampledConfig",
    "Section",
    "ShortlistConfig",
    "SoftTopkConfig",
    "SoftmaxConfig",
    "StaticConfig",
    "SupervisionConfig",
    "TrainConfig",
    "TransformerConfig",
    "TripletMarginConfig",
    "ValidationConfig",
]
