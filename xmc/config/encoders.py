"""What encodes texts: a section for each kind of encoder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from xmc.config.field_errors import FieldError
from xmc.config.section import KindSection, Section
from xmc.errors import ConfigError
from xmc.registry import Registry

__all__ = ["ENCODER_SECTIONS", "EncoderConfig", "ImagesConfig", "LoRAConfig", "StaticConfig", "TransformerConfig"]

logger = logging.getLogger("xmc.config")


class EncoderConfig(KindSection):
    """The base of encoders' sections; a new kind is registered in ENCODER_SECTIONS."""

    default_learning_rate: ClassVar[float] = 5e-5
    """The highest learning rate where `optimizer.learning_rate.encoder` names none."""
    only_on_cpu: ClassVar[bool] = False
    """Whether the encoder runs on the CPU alone, so that `device` may name no other."""

    @property
    def is_split(self) -> bool:
        """Whether training splits the encoder's parameters over the processes, which needs `gradient_cache`."""
        return False


class StaticConfig(EncoderConfig):
    """The static encoder: words, word bigrams and character n-grams hashed into one table."""

    default_learning_rate: ClassVar[float] = 5e-3
    only_on_cpu: ClassVar[bool] = True

    kind: Literal["static"] = "static"
    """The static encoder."""
    dimension: int = Field(default=384, ge=1)
    """Length D of an embedding."""
    table_rows: int = Field(default=262_144, ge=1)
    """Rows of the one table that all features share."""
    weight_slots: int = Field(default=262_144, ge=1)
    """Number of learned feature weights, shared by hash as well."""
    kind_scales: tuple[float, ...] = (1.0, 1.0, 0.7, 0.7, 0.7)
    """A factor for each kind of feature: words, word bigrams, character 3-, 4- and 5-grams; 0 leaves a kind out."""

    @field_validator("kind_scales")
    @classmethod
    def _five(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if len(scales) != 5 or min(scales) < 0 or not any(scales):
            raise FieldError("must be five numbers >= 0, not all 0")
        return scales


class ImagesConfig(Section):
    """Image embeddings that come with a text."""

    dimension: int = Field(default=0, ge=0)
    """Length of an image embedding; 0 for no images."""
    most: int = Field(default=3, ge=1)
    """Number of a text's images that are used at most."""


class LoRAConfig(Section):
    """Low-rank adapters of a frozen backbone (Hu et al., LoRA, ICLR 2022), by the package peft."""

    rank: int = Field(default=0, ge=0)
    """Rank of the adapters; 0 for none, and the whole backbone is trained."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale of the adapters; by default the rank."""
    rank_stabilized: bool = True
    """Scale by alpha over the root of the rank (Kalajdzievski, rsLoRA, 2023), not over the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the adapters' input."""
    weight_decomposed: bool = False
    """Learn each weight's size apart from its direction (Liu et al., DoRA, ICML 2024)."""
    target: tuple[str, ...] = ()
    """Names, or ends of names, of the linear layers that have adapters; none for all of the backbone's."""


class TransformerConfig(EncoderConfig):
    """A pretrained transformer: an encoder, or a decoder-only language model without its head."""

    kind: Literal["transformer"] = "transformer"
    """A pretrained transformer."""
    directory: str = Field(min_length=1)
    """A Hugging Face or sentence-transformers directory, or one with a GGUF file, or that file."""
    pooling: Literal["mean", "cls", "last", "eos"] | None = None
    """Pooling of token states: "mean" over all tokens, "cls", the first of them, "last", or "eos", the end-of-sequence token's,
    which is put there where the tokenizer does not; by default as the directory says, else "mean"."""
    max_length: int | None = Field(default=None, ge=3)
    """Tokens kept of a text with its prompt, images apart; by default as the directory says. A prompt is never cut."""
    attention: Literal["default", "bidirectional"] = "default"
    """Attention between tokens: "bidirectional" lets every token of a decoder see all others; "default" is what the model was
    trained with."""
    query_prompt: str | None = None
    """What stands around a query's text, such as "This product text {text} and its image {images}"; {images} is where image
    embeddings go, before everything where it is not said. By default as the directory says, else the text alone."""
    label_prompt: str | None = None
    """What stands around a label's text, as `query_prompt` around a query's."""
    images: ImagesConfig = ImagesConfig()
    """Image embeddings that come with texts."""
    lora: LoRAConfig = LoRAConfig()
    """Adapters of a frozen backbone."""
    projection: int | None = Field(default=None, ge=1)
    """Output dimension of an added linear layer; none for no such layer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the backbone's weights and activations."""
    tokens_per_micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of tokens that are encoded at once, a longer text apart; with gradient caching, the activations held are those of
    this number of tokens. "auto": 2,048 on a CPU, on a GPU as many as take an eighth of its memory, 65,536 at most."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout of hidden states and attention in training; by default as the directory says."""
    frozen_layers: int = Field(default=0, ge=0)
    """The token embeddings and this number of the first layers stay as they are; 0 trains everything."""
    gradient_checkpointing: bool = False
    """Hold each layer's input instead of all its activations, and compute these again."""
    compile: bool = False
    """Compile the backbone with torch.compile."""
    shard: bool = False
    """Under torchrun, split the backbone's parameters, gradients and moments over the processes (FSDP2), for a backbone that
    does not fit each of them; needs `gradient_cache`."""

    @model_validator(mode="before")
    @classmethod
    def _counted_in_tokens(cls, values: Any) -> Any:
        """Leave out `micro_batch_size`, the number of texts that runs of before encoded at once."""
        if not isinstance(values, Mapping) or "micro_batch_size" not in values:
            return values
        logger.warning("encoder.micro_batch_size is left out: encoder.tokens_per_micro_batch counts tokens, not texts")
        return {key: value for key, value in values.items() if key != "micro_batch_size"}

    @property
    def is_split(self) -> bool:
        """Whether training splits the backbone over the processes."""
        return self.shard

    @model_validator(mode="after")
    def _fits_together(self) -> TransformerConfig:
        if self.shard and self.compile:
            raise ConfigError("encoder.shard and encoder.compile do not go together; set one of them to false.")
        if self.images.dimension and self.shard:
            raise ConfigError("encoder.shard does not go with images; set encoder.images.dimension to 0.")
        if self.lora.rank and self.shard:
            raise ConfigError("encoder.shard splits a backbone that is trained whole; set encoder.lora.rank to 0.")
        if self.lora.rank and self.frozen_layers:
            raise ConfigError("encoder.lora freezes the whole backbone; set encoder.frozen_layers to 0.")
        return self


ENCODER_SECTIONS: Registry[type[EncoderConfig]] = Registry(
    "encoder", {"static": StaticConfig, "transformer": TransformerConfig}
)
"""The section of each kind of encoder."""
