"""The model as a part of training: what of it a checkpoint holds, and what it takes."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import Self

from xmc.config import ResidualConfig
from xmc.encoders.dual import DualEncoder
from xmc.training.checkpoints import Checkpoint
from xmc.training.distributed.sharding import load_tensor
from xmc.training.parts import PartState, Sizes, TrainingPart, TrainingRun

__all__ = ["Weights", "shared_tensors"]


class Weights(TrainingPart):
    """Parameters that are learned, buffers, and label vectors."""

    name = "model"

    def __init__(self, model: DualEncoder) -> None:
        self.model = model

    @classmethod
    def from_run(cls, run: TrainingRun) -> Self:
        """The run's model."""
        return cls(run.model)

    @classmethod
    def memory(cls, sizes: Sizes) -> dict[str, float]:
        """Parameters of the encoders, and label vectors, which may stay on the host."""
        residual = ResidualConfig.of(sizes.config.label_vectors)
        parameters = float(sum(p.numel() * p.element_size() for p in sizes.model.parameters()))
        taken = {"encoder parameters": parameters / (sizes.processes if sizes.config.encoder.is_split else 1)}
        working = float(sum(encoder.working_bytes() for encoder in sizes.model.encoders))
        if working:
            taken["encoder parameters in bfloat16"] = working
        if residual is not None:
            where = " (host)" if residual.memory == "host" else ""
            taken["label vectors" + where] = sizes.own_labels * sizes.row
        return taken

    def state(self) -> PartState:
        """What is learned, under the names that the model has for it."""
        shared = {"model." + name: tensor for name, tensor in shared_tensors(self.model).items()}
        vectors = self.model.label_vectors
        return PartState(shared, {} if vectors is None else {"model.label_vectors": vectors})

    @torch.no_grad()
    def load_state(self, run: TrainingRun, checkpoint: Checkpoint) -> None:
        """Take up what `state` gave."""
        for name, tensor in shared_tensors(self.model).items():
            load_tensor(tensor, checkpoint, "model." + name)
        if self.model.label_vectors is not None:
            self.model.label_vectors.copy_(checkpoint.tensor("model.label_vectors", run.labels))


def shared_tensors(model: DualEncoder) -> dict[str, Tensor]:
    """Parameters that are learned, and buffers, that every process has, whole or split, by name."""
    learned = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {name: tensor for name, tensor in [*learned, *model.named_buffers()] if name != "label_vectors"}
