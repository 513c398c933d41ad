"""FSDP2: a backbone's parameters, gradients and moments, split over the processes for one that does not fit each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from typing_extensions import TypeIs

from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder, build_encoder
from xmc.encoders.precision import Precision
from xmc.training.checkpoints import Checkpoint
from xmc.training.distributed.world import World

__all__ = ["is_split", "load_tensor", "split_backbones", "whole_model"]


def split_backbones(model: DualEncoder, world: World, device: torch.device, precision: Precision) -> None:
    """Split every backbone over the processes, layer by layer (Zhao et al., PyTorch FSDP, VLDB 2023).

    A layer's parameters are gathered when it computes, and given up after. Gradients are summed over the processes, not
    averaged: each has a part of one batch. All processes have to call the encoders equally often; `equal_calls` sees to the
    micro-batches of one call. In bfloat16 the gathered parameters are rounded, and gradients are summed in float32.
    """
    for encoder in model.encoders:
        encoder.equal_calls = world.most
    lowered = model.compute_in(precision, device) == "bfloat16"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if lowered else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.type, (world.size,))
    for encoder in model.encoders:
        # The embeddings' module, too, gives up its parameters after the forward pass, which FSDP would keep by itself: an
        # optimizer's step would not reach what is kept, when no backward pass came between.
        for module in encoder.splittable_modules():
            part: Any = fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def is_split(tensor: Tensor) -> TypeIs[DTensor]:
    """Whether this process has some of the tensor's rows only."""
    return isinstance(tensor, DTensor)


def load_tensor(tensor: Tensor, checkpoint: Checkpoint, name: str) -> None:
    """Copy what a checkpoint has into a tensor, or this process's rows of it into one that is split."""
    if not is_split(tensor):
        tensor.copy_(checkpoint.tensor(name))
        return
    size, rank = tensor.device_mesh.size(), tensor.device_mesh.get_local_rank()
    each = -(-len(tensor) // size)
    own = slice(min(rank * each, len(tensor)), min((rank + 1) * each, len(tensor)))
    tensor.to_local().copy_(checkpoint.tensor(name, own))


def whole_model(model: DualEncoder, vectors: Tensor | None, config: TrainConfig, world: World) -> DualEncoder | None:
    """The model with `vectors` [L, D] of all labels, in the root process; None elsewhere. All processes have to call it."""
    backbones = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if not backbones:
        return model.with_all_vectors(vectors) if world.is_root else None
    parts = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name != "label_vectors" and not name.startswith("prototypes.")
    }
    whole = {name: world.to_root(tensor) if is_split(tensor) else tensor for name, tensor in parts.items()}
    if not world.is_root:
        return None
    copy = build_encoder(config, 0, torch.Generator())
    copy.load_state_dict(whole)
    copy.prototypes = model.prototypes
    copy.to(model.log_temperature.device).compute_in(config.precision)
    return copy.with_all_vectors(vectors)
