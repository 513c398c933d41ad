"""What training does to a transformer before the first step: dropout, frozen layers, gradient checkpointing, compilation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from xmc.config import TrainConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import ConfigError

__all__ = ["layers_of", "prepare_backbones"]


def prepare_backbones(model: DualEncoder, config: TrainConfig) -> None:
    """Apply `config.transformer` to the towers that are transformers; ConfigError for what a backbone does not offer."""
    options = config.transformer
    for encoder in {id(tower): tower for tower in (model.query_encoder, model.label_encoder)}.values():
        if not isinstance(encoder, TransformerEncoder):
            continue
        backbone: Any = encoder.backbone
        if options.dropout is not None:
            _set_dropout(backbone, options.dropout)
        if options.frozen_layers:
            _freeze(backbone, options.frozen_layers)
        if options.gradient_checkpointing:
            backbone.gradient_checkpointing_enable({"use_reentrant": False})
        if options.compile:
            backbone.compile(dynamic=True)


def _set_dropout(backbone: Any, share: float) -> None:
    """Of hidden states and attention; adapters have a dropout of their own. Decoders keep that of attention as a number."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Dropout) and ".lora_dropout" not in name:
            module.p = share
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share


def layers_of(backbone: Any) -> Sequence[nn.Module]:
    """The layers of a transformer, the first one first; ConfigError where they are not where such models have them."""
    stack = getattr(backbone, "encoder", None) or getattr(backbone, "transformer", None) or backbone
    layers: Sequence[nn.Module] | None = getattr(stack, "layer", None) or getattr(stack, "layers", None)
    if layers is None:
        raise ConfigError(
            f"The layers of a {type(backbone).__name__} are not known: set transformer.frozen_layers to 0 and "
            f"transformer.shard to false."
        )
    return layers


def _freeze(backbone: Any, count: int) -> None:
    layers = layers_of(backbone)
    embeddings = getattr(backbone, "embeddings", None) or backbone.get_input_embeddings()
    if count > len(layers):
        raise ConfigError(f"transformer.frozen_layers is {count}, but the backbone has {len(layers)} layers.")
    for module in (embeddings, *layers[:count]):
        module.requires_grad_(False)
