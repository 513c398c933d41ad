"""The layers of a backbone, and what training does to them: dropout, frozen layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from xmc.errors import ConfigError

__all__ = ["freeze_layers", "layers_of", "set_dropout"]


def layers_of(backbone: Any) -> Sequence[nn.Module]:
    """The layers of a transformer, the first one first; ConfigError where they are not where such models have them."""
    stack = getattr(backbone, "encoder", None) or getattr(backbone, "transformer", None) or backbone
    layers: Sequence[nn.Module] | None = getattr(stack, "layer", None) or getattr(stack, "layers", None)
    if layers is None:
        raise ConfigError(
            f"The layers of a {type(backbone).__name__} are not known: set encoder.frozen_layers to 0 and "
            f"encoder.shard to false."
        )
    return layers


def set_dropout(backbone: Any, probability: float) -> None:
    """Set the dropout of hidden states and attention; adapters keep a dropout of their own."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout" not in name:
            module.p = probability
        if isinstance(getattr(module, "attention_dropout", None), float):  # as decoders keep that of attention
            module.attention_dropout = probability


def freeze_layers(backbone: Any, count: int) -> None:
    """Freeze the token embeddings and the first `count` layers; ConfigError where the backbone has fewer."""
    layers = layers_of(backbone)
    embeddings = getattr(backbone, "embeddings", None) or backbone.get_input_embeddings()
    if count > len(layers):
        raise ConfigError(f"encoder.frozen_layers is {count}, but the backbone has {len(layers)} layers.")
    for module in (embeddings, *layers[:count]):
        module.requires_grad_(False)
