"""What makes a transformer encoder: its settings and its parts, as they are built from a configuration or read from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from xmc.config import LoRAConfig
from xmc.encoders.sentence_transformers.modules import Dense

__all__ = ["TransformerParts", "TransformerSettings"]


@dataclass(frozen=True)
class TransformerSettings:
    """What belongs to the encoder besides the backbone: saved in encoder.json.

    lower_case, prompt: done to a text before it is tokenised, as the sentence-transformers directory says.
    query_prompt, label_prompt: templates in place of `prompt`, see xmc.encoders.transformer.prompts; None for none.
    image_dimension: length of an image embedding, 0 for no images. most_images: number of images used of a text at most.
    tokens_per_micro_batch: None for what the device allows.
    base, base_digest: with adapters, the directory that the frozen backbone was read from, and the digest of its weights.
    """

    pooling: str
    max_length: int
    normalize: bool
    dtype: str
    projection: int | None
    prompt: str = ""
    lower_case: bool = False
    tokens_per_micro_batch: int | None = None
    attention: str = "default"
    query_prompt: str | None = None
    label_prompt: str | None = None
    image_dimension: int = 0
    most_images: int = 3
    base: str = ""
    base_digest: str = ""


@dataclass(frozen=True)
class TransformerParts:
    """What a transformer encoder is put together from.

    backbone, tokenizer: of the package transformers. dense: layers after the pooling, the first one first.
    lora: the adapters that the backbone has; None for none.
    """

    backbone: nn.Module
    tokenizer: Any
    settings: TransformerSettings
    dense: Sequence[Dense] = ()
    lora: LoRAConfig | None = None
