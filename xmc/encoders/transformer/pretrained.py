"""The parts of a transformer encoder from a pretrained model that a configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xmc.config import TransformerConfig
from xmc.encoders.sentence_transformers.modules import read_modules
from xmc.encoders.transformer.adapters import add_adapters
from xmc.encoders.transformer.backbones import positions, read_backbone, read_tokenizer, weights_digest
from xmc.encoders.transformer.pooling import POOLINGS
from xmc.encoders.transformer.settings import TransformerParts, TransformerSettings
from xmc.errors import ConfigError, boundary

__all__ = ["read_pretrained"]

DEFAULT_LENGTH = 512
"""Number of tokens of a text, where neither the configuration nor the directory says how long texts may be."""


def read_pretrained(options: TransformerConfig) -> TransformerParts:
    """Read the model in `options.directory`; adapters that are added to it have random weights.

    Only safetensors and GGUF weights are read, and code in a directory is never run.
    Raises ConfigError where the directory or a value cannot be used, with the reason; DependencyError where a package is
    missing.
    """
    root = Path(options.directory)
    if not root.is_dir() and not (root.suffix == ".gguf" and root.is_file()):
        raise ConfigError(f"encoder.directory {options.directory!r} is not a directory with a model.")
    described = read_modules(root)
    pooling = options.pooling or described.pooling or "mean"
    if pooling not in POOLINGS:
        raise ConfigError(f"{root} asks for the pooling {pooling!r}; xmc has {', '.join(POOLINGS)}.")
    with boundary(ConfigError, f"{root} cannot be loaded as a transformer with safetensors weights"):
        backbone = read_backbone(described.backbone, options.dtype)
        tokenizer = read_tokenizer(described.backbone)
    settings = TransformerSettings(
        pooling=pooling,
        max_length=_length(options, described.max_length, positions(backbone), tokenizer.model_max_length),
        normalize=described.normalize,
        dtype=options.dtype,
        projection=options.projection,
        prompt=described.prompt,
        lower_case=described.lower_case,
        tokens_per_micro_batch=None if options.tokens_per_micro_batch == "auto" else options.tokens_per_micro_batch,
        attention=options.attention,
        query_prompt=options.query_prompt,
        label_prompt=options.label_prompt,
        image_dimension=options.images.dimension,
        most_images=options.images.most,
    )
    if not options.lora.rank:
        return TransformerParts(backbone, tokenizer, settings, described.dense)
    add_adapters(backbone, options.lora)
    base = described.backbone.resolve()
    settings = replace(settings, base=str(base), base_digest=weights_digest(base))
    return TransformerParts(backbone, tokenizer, settings, described.dense, options.lora)


def _length(options: TransformerConfig, described: int | None, known: int | None, tokenizer_length: int) -> int:
    """The maximal length: as configured, or as the directory allows beside the images that are used.

    described: what the directory says. known: number of the backbone's positions; None where it does not say.
    """
    room = None if known is None else known - (options.images.most if options.images.dimension else 0)
    if options.max_length is None:
        limits = (room, described or min(DEFAULT_LENGTH, tokenizer_length))
        length = int(min(limit for limit in limits if limit is not None))
    else:
        length = options.max_length
    if length < 3 or (room is not None and length > room):
        allowed = "3 or more" if room is None else f"from 3 to {room}"
        raise ConfigError(
            f"encoder.max_length must be {allowed} for the model in {options.directory}, but is {length}."
        )
    return length
