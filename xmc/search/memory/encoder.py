"""An encoder that a memory has beside the run's own: alone, named by its weights, and where it runs."""

from __future__ import annotations

import hashlib

import torch

from xmc.config import ENCODER_SECTIONS
from xmc.encoders.base import device_of
from xmc.encoders.dual import DualEncoder
from xmc.search.placement import place_model

__all__ = ["encoder_alone", "name_of_encoder", "placed_beside"]


def encoder_alone(model: DualEncoder) -> DualEncoder:
    """The encoder of queries of a model, whose saved files suffice to load it; ConfigError where that cannot be done."""
    tower = model.query_encoder.merged()
    alone = DualEncoder(tower, tower, normalize=model.normalize)
    alone.served = model.served
    return alone.eval()


def name_of_encoder(model: DualEncoder) -> str:
    """SHA-256 of what embeddings of queries depend on: weights, tokens, and what is done to vectors."""
    encoder = model.query_encoder
    digest = hashlib.sha256(f"{encoder.kind} {encoder.features_key} {model.normalize} {model.served}".encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def placed_beside(model: DualEncoder, encoder: DualEncoder) -> DualEncoder:
    """The encoder, where the model runs; where that runs on the processor alone, wherever the machine is fastest."""
    bound = any(ENCODER_SECTIONS[tower.kind].only_on_cpu for tower in model.encoders)
    place_model(encoder, "auto" if bound else str(device_of(model.query_encoder)))
    return encoder.eval()
