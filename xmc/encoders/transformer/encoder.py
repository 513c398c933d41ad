"""A pretrained Hugging Face transformer, encoder or decoder, as an encoder: its states pooled into one vector."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xmc.config import LearningRates, TransformerConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side, TokenCost
from xmc.encoders.precision import Computed, Precision, multiplies_bfloat16
from xmc.encoders.sentence_transformers.modules import Dense
from xmc.encoders.transfer import on_device
from xmc.encoders.transformer.adapters import merged_backbone
from xmc.encoders.transformer.arrangement import Arranged
from xmc.encoders.transformer.backbones import first_position
from xmc.encoders.transformer.images import WithImages, input_embeddings, place_images
from xmc.encoders.transformer.layers import freeze_layers, layers_of, set_dropout
from xmc.encoders.transformer.lowered import Lowered
from xmc.encoders.transformer.micro_batches import cut, default_budget
from xmc.encoders.transformer.packing import pack
from xmc.encoders.transformer.padding import pad
from xmc.encoders.transformer.pooling import pool
from xmc.encoders.transformer.pretrained import read_pretrained
from xmc.encoders.transformer.probe import packs
from xmc.encoders.transformer.settings import TransformerParts
from xmc.encoders.transformer.storage import read_parts, write_parts
from xmc.encoders.transformer.tokenising import TextTokenizer
from xmc.errors import ConfigError, InputError, StoreError, boundary

__all__ = ["TransformerEncoder"]

ACTIVATIONS_PER_LAYER = 17
"""Numbers for each token and hidden number that a layer of a transformer keeps for the backward pass (Korthikanti et al.,
Reducing Activation Recomputation in Large Transformer Models, MLSys 2023, section 4.1: 34 bytes at two bytes a number)."""


class TransformerEncoder(Encoder):
    """Tokens through a transformer, pooled into one vector, through dense layers where the directory has some.

    Texts are packed: a micro-batch is one run of tokens, and a token attends to those of its own text. A backbone that does
    not call its attention through transformers' interface is given padded texts in place of that. Either way a text's
    embedding does not depend on the other texts of a batch, nor on the side on which its tokenizer pads. Token dropout
    removes tokens (never special ones, nor those of the images) from the sequence. A sequence without any token, as some
    tokenizers give for an empty text, is pooled to zero.

    Image embeddings go through one linear layer and take places among the tokens, as many as a text has images, up to
    `most_images` (ViXML, Ortego et al., AAAI 2026, section 3.3). The token `slot`, which no text holds, says where.
    """

    kind: ClassVar[str] = "transformer"

    def __init__(self, parts: TransformerParts) -> None:
        """Put the parts together; projections have random weights. Raises ConfigError for parts that do not fit together."""
        super().__init__()
        settings = parts.settings
        self.backbone, self.settings, self.lora = parts.backbone, settings, parts.lora
        self.dense = nn.ModuleList(parts.dense)
        config: Any = parts.backbone.config
        width = hidden = int(config.hidden_size)
        for layer in parts.dense:
            if layer.linear.in_features != width:
                raise ConfigError(f"A Dense module takes {layer.linear.in_features} numbers, but is given {width}.")
            width = layer.linear.out_features
        self.projection = nn.Linear(width, settings.projection, bias=False) if settings.projection else None
        self.image_dimension = settings.image_dimension
        self.image_projection = nn.Linear(self.image_dimension, hidden) if self.image_dimension else None
        self.dimension = settings.projection or width
        self.texts = TextTokenizer(parts.tokenizer, settings, int(config.vocab_size))
        self.first_position = first_position(parts.backbone)
        self.packed = packs(parts.backbone, self.first_position, settings.attention == "bidirectional")
        """Whether texts are packed; they are padded otherwise."""
        self.few_shapes = False
        """Whether micro-batches are filled up to few different sizes on a CPU too."""
        self.lowered: Lowered | None = None
        """The working copy that computes in place of the backbone; None where that computes itself."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the package transformers."""
        return self.texts.tokenizer

    @property
    def slot(self) -> int:
        """The token id in whose place images go."""
        return self.texts.slot

    @classmethod
    def from_pretrained(cls, directory: str | Path, **options: Any) -> TransformerEncoder:
        """Read a model; see `from_config` and, for the options, xmc.config.TransformerConfig."""
        return cls.from_config(TransformerConfig(directory=str(directory), **options))

    @classmethod
    def from_config(cls, options: TransformerConfig, generator: torch.Generator | None = None) -> TransformerEncoder:
        """Read the model that a configuration names; what is added to it (projections, adapters) has random weights.

        These are drawn by torch's own generator, whatever the given one. Only safetensors and GGUF weights are read, and
        code in a directory is never run. Raises ConfigError where the directory or a value cannot be used, with the reason;
        DependencyError where a package is missing.
        """
        return cls(read_pretrained(options))

    def featurize(self, texts: Sequence[str], side: Side = "query") -> RaggedTokens:
        """Token ids, uint32, with special tokens and the side's prompt; the text is cut so that all are max_length at most.

        With images configured there is one token `slot` among them, which `forward` replaces by the images.
        """
        return self.texts.tokens(texts, side)

    @property
    def longest_text(self) -> int:
        """What the prompt of queries and special tokens leave of `max_length`."""
        return self.texts.room("query")

    def spans(self, text: str) -> npt.NDArray[np.int64]:
        """By the tokenizer's offsets, without prompts and special tokens; words, where it knows no offsets."""
        return self.texts.spans(text)

    @property
    def features_key(self) -> str:
        """Depends on the tokenizer's content, what is done to a text before it, prompts, and the maximal length."""
        return f"transformer-{self.texts.fingerprint}"

    def fixed_tokens(self, features: RaggedTokens, side: Side) -> npt.NDArray[np.bool_]:
        """[CLS], [SEP] and their kin, the side's prompt and the images' slot."""
        return self.texts.fixed(features, side)

    def require_tokens(self, values: npt.NDArray[np.unsignedinteger]) -> None:
        """Raise InputError for a token that is not in the vocabulary, nor the images' slot where images are configured."""
        if len(values) and int(values.max()) >= self.texts.size:
            raise InputError(f"The token {int(values.max())} is not one of the tokenizer's {self.texts.size:,}.")

    @property
    def tokens_per_micro_batch(self) -> int:
        """Number of tokens that are encoded together at most, a longer text apart: as configured, or as the device allows."""
        if self.settings.tokens_per_micro_batch is not None:
            return self.settings.tokens_per_micro_batch
        return default_budget(self._device, lambda: self.token_cost().activation_bytes)

    def micro_batches(self, features: RaggedTokens) -> list[npt.NDArray[np.int64]]:
        """Texts in order of length, as many as have `tokens_per_micro_batch` tokens together, padding counted."""
        lengths = features.lengths
        if features.images is not None:
            lengths = lengths + np.minimum(features.images.counts, self.settings.most_images)
        batches = cut(lengths, self.tokens_per_micro_batch, padded=not self.packed)
        if self.equal_calls is not None:
            more = self.equal_calls(len(batches)) - len(batches)
            batches += [np.zeros(0, np.int64)] * more
        return batches

    def forward(self, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] float32 (float64 for a backbone in float64) on the module's device.

        Raises InputError for images that the encoder does not take.
        """
        if features.images is not None and self.images_of(features.images) is None:
            raise InputError("This encoder takes no images; set encoder.images.dimension, or leave them out.")
        batches = self.micro_batches(features)
        if not batches:
            return torch.zeros(0, self.dimension, device=self._device)
        if len(batches) == 1:
            return self._encode(features)
        embeddings = [self._encode(features.take(rows)) for rows in batches]
        inverse = np.argsort(np.concatenate(batches), kind="stable")
        return torch.cat(embeddings)[on_device(inverse, self._device)]

    def prepare_for_training(self, options: TransformerConfig) -> None:
        """Set dropout, freeze layers, checkpoint gradients and compile, as the options say; ConfigError where it cannot be."""
        if self.lowered is not None:
            self.lowered.forget()
        backbone: Any = self.backbone
        if options.dropout is not None:
            set_dropout(backbone, options.dropout)
        if options.frozen_layers:
            freeze_layers(backbone, options.frozen_layers)
        if options.gradient_checkpointing:
            backbone.gradient_checkpointing_enable({"use_reentrant": False})
        if options.compile:
            backbone.compile(dynamic=True)
            self.few_shapes = True

    def compute_in(self, precision: Precision, device: torch.device | None = None) -> Computed:
        """bfloat16 by a working copy of the backbone, see `Lowered`; one whose weights are bfloat16 computes in that anyway.

        Pooling, and the layers after it, are of float32. "auto" is bfloat16 where the device multiplies it.
        """
        if precision == "auto":
            precision = "bfloat16" if multiplies_bfloat16(self._device if device is None else device) else "float32"
        needed = precision == "bfloat16" and self.equal_calls is None
        self.lowered = Lowered() if needed and self.settings.dtype != "bfloat16" else None
        return "bfloat16" if self.settings.dtype == "bfloat16" else precision

    def collect_gradients(self) -> None:
        """Those of the working copy."""
        if self.lowered is not None:
            self.lowered.collect()

    def working_bytes(self) -> int:
        """Memory of the working copy."""
        return 0 if self.lowered is None else self.lowered.bytes_for(self.backbone)

    def learning_rates(self, rates: LearningRates) -> dict[str, float]:
        """The rate of the layer that projects images, where the configuration gives it one."""
        rate = rates.images
        names = [] if rate is None else [name for name, _ in self.named_parameters() if "image_projection." in name]
        return {name: rate for name in names if rate is not None}

    def splittable_modules(self) -> list[nn.Module]:
        """The layers of the backbone, and the backbone."""
        return [*layers_of(self.backbone), self.backbone]

    def token_cost(self) -> TokenCost:
        """Weights but those of embeddings are multiplied; every layer keeps activations, or one where they are recomputed."""
        backbone: Any = self.backbone
        recomputed = any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())
        layers = 1 if recomputed else backbone.config.num_hidden_layers
        number_bytes = 4 if self.lowered is None and self.settings.dtype != "bfloat16" else 2
        kept = ACTIVATIONS_PER_LAYER * number_bytes * backbone.config.hidden_size * layers
        return TokenCost(*self._flops(lambda name, _: "embed" not in name), float(kept))

    def merged(self) -> TransformerEncoder:
        """An encoder whose adapters are part of its weights, for the same embeddings up to rounding; itself without any."""
        if self.lora is None:
            return self
        settings = replace(self.settings, base="", base_digest="")
        backbone = merged_backbone(self.backbone)
        encoder = TransformerEncoder(
            TransformerParts(backbone, self.tokenizer, settings, copy.deepcopy(self._layers()))
        )
        encoder.load_state_dict(self._tensors_beside_backbone(), strict=False)
        return encoder.eval()

    def save(self, directory: Path) -> None:
        """Write encoder.json, backbone/ in Hugging Face layout, and encoder.safetensors for dense layers and projections.

        With adapters, backbone/ holds these alone, as peft reads them, and the tokenizer.
        """
        parts = TransformerParts(self.backbone, self.tokenizer, self.settings, self._layers(), self.lora)
        write_parts(parts, self._tensors_beside_backbone(), self.kind, directory)

    @classmethod
    def load(cls, directory: Path) -> TransformerEncoder:
        """Read an encoder written by `save`; StoreError when the files, or the backbone that adapters need, do not fit."""
        with boundary(StoreError, f"{directory} does not hold a transformer encoder that can be read"):
            try:
                parts, tensors = read_parts(directory)
                encoder = cls(parts)
            except (ConfigError, StoreError) as error:
                raise ValueError(str(error)) from error
            outcome = encoder.load_state_dict(tensors, strict=False)
            lacking = [name for name in outcome.missing_keys if not name.startswith("backbone.")]
            if lacking or outcome.unexpected_keys:
                raise ValueError(f"encoder.safetensors does not fit: {[*lacking, *outcome.unexpected_keys][0]}")
        return encoder

    def _tensors_beside_backbone(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def _layers(self) -> list[Dense]:
        return [layer for layer in self.dense if isinstance(layer, Dense)]

    @property
    def _device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @property
    def _computing(self) -> Any:
        """What computes: the backbone, or its working copy."""
        return self.backbone if self.lowered is None else self.lowered.module(self.backbone)

    def _encode(self, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] of one micro-batch."""
        if not len(features):  # for the sake of the other processes: the backbone runs on an empty text
            return self._encode(RaggedTokens(features.values, np.zeros(2, np.int64)))[:0]
        backbone = self._computing
        placed = WithImages(features.values, features.lengths, np.zeros((0, 0), np.float16))
        if self.image_dimension:
            placed = place_images(features, self.slot, self.image_dimension, self.settings.most_images)
        arranged, images = self._arranged(placed), None
        inputs = {"input_ids": arranged.ids}
        if self.image_projection is not None:
            images = placed.values == self.slot
            table = backbone.get_input_embeddings()
            is_image = arranged.ids == self.slot
            embedded = input_embeddings(table, self.image_projection, arranged.ids, is_image, placed.images)
            inputs = {"inputs_embeds": embedded}
        hidden: Tensor = backbone(**inputs, **arranged.keywords).last_hidden_state
        states = arranged.states(hidden).to(torch.promote_types(hidden.dtype, torch.float32))
        pooled = pool(states, placed.lengths, self.settings.pooling, images)
        for layer in self._layers():
            pooled = layer.forward(pooled)
        return pooled if self.projection is None else self.projection.forward(pooled)

    def _arranged(self, placed: WithImages) -> Arranged:
        """The tokens of a micro-batch, packed where the backbone can be given them so."""
        device = self._device
        if not self.packed:
            dtype = next(self.backbone.parameters()).dtype if self.lowered is None else self.lowered.dtype
            bidirectional = self.settings.attention == "bidirectional"
            return pad(placed.values, placed.lengths, self.texts.padding, device, bidirectional, dtype)
        full = self.tokens_per_micro_batch if self.few_shapes or device.type == "cuda" else None
        return pack(placed.values, placed.lengths, self.first_position, device, full)
