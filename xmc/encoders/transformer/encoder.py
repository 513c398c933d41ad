"""A pretrained Hugging Face transformer, encoder or decoder, as an encoder: its states pooled into one vector."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmc.config.training import LoRAConfig, TransformerConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side
from xmc.encoders.sentence_transformers.modules import Dense, read_modules
from xmc.encoders.transformer.adapters import add_adapters, load_adapters, merged_backbone, save_adapters
from xmc.encoders.transformer.backbones import (
    BROKEN,
    positions,
    quietly,
    read_backbone,
    read_tokenizer,
    see_everything,
    weights_digest,
)
from xmc.encoders.transformer.pooling import POOLINGS, pool
from xmc.encoders.transformer.prompts import Prompt
from xmc.errors import ConfigError, InputError, StoreError, require_package
from xmc.storage.fingerprints import fingerprint_of_json

__all__ = ["TransformerEncoder", "TransformerSettings"]

_TOKENISE_AT_ONCE = 4096
_DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class TransformerSettings:
    """What belongs to the encoder besides the backbone: saved in encoder.json.

    lower_case, prompt: done to a text before it is tokenised, as the sentence-transformers directory says.
    query_prompt, label_prompt: templates in place of `prompt`, see xmc.encoders.transformer.prompts; None for none.
    image_dimension: numbers of an image embedding, 0 for none.
    base, base_digest: with adapters, the directory that the frozen backbone was read from, and what names its weights.
    """

    pooling: str
    max_length: int
    normalize: bool
    dtype: str
    projection: int | None
    prompt: str = ""
    lower_case: bool = False
    micro_batch_size: int = 128
    attention: str = "default"
    query_prompt: str | None = None
    label_prompt: str | None = None
    image_dimension: int = 0
    most_images: int = 3
    quantization: str = "none"
    base: str = ""
    base_digest: str = ""


class TransformerEncoder(Encoder):
    """Tokens through a transformer, pooled into one vector, through dense layers where the directory has some.

    A text's embedding does not depend on the other texts of a batch, nor on the side on which its tokenizer pads: sequences are
    padded at the end, and no token sees padding. Token dropout removes tokens (never special ones, nor those of the images)
    from the sequence. A sequence without any token, as some tokenizers give for an empty text, is pooled to zero.

    Image embeddings go through one linear layer and take places among the tokens, as many as a text has images, up to
    `most_images` (ViXML, Ortego et al., AAAI 2026, section 3.3). The token `slot`, which no text holds, says where.
    """

    kind: ClassVar[str] = "transformer"

    def __init__(
        self,
        backbone: nn.Module,
        tokenizer: Any,
        settings: TransformerSettings,
        dense: Sequence[Dense] = (),
        lora: LoRAConfig | None = None,
    ) -> None:
        """lora: what adapters the backbone has; None for none."""
        super().__init__()
        self.backbone, self.tokenizer, self.settings, self.lora = backbone, tokenizer, settings, lora
        self.dense = nn.ModuleList(dense)
        config: Any = backbone.config
        width = hidden = int(config.hidden_size)
        for layer in dense:
            if layer.linear.in_features != width:
                raise ConfigError(f"A Dense module takes {layer.linear.in_features} numbers, but is given {width}.")
            width = layer.linear.out_features
        self.projection = nn.Linear(width, settings.projection, bias=False) if settings.projection else None
        self.image_dimension = settings.image_dimension
        self.image_projection = nn.Linear(self.image_dimension, hidden) if self.image_dimension else None
        self.dimension = settings.projection or width
        self.micro_batch_size = settings.micro_batch_size
        self.equal_calls: Callable[[int], int] | None = None
        """Given how many micro-batches this process has, how many every process goes through: where they compute together."""
        self.slot = max(len(tokenizer), int(config.vocab_size))
        self._special = sorted({*tokenizer.all_special_ids, self.slot})
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        # Set once: setting it at every call, as the tokenizer does, is not safe where threads share the encoder.
        if self._backend is not None:
            self._backend.no_padding()
            self._backend.enable_truncation(settings.max_length, direction=tokenizer.truncation_side)
        self._around = self._special_tokens_around()
        self._prompts: dict[Side, tuple[list[int], str, list[int]]] = {
            "query": self._tokenised(settings.query_prompt, "transformer.query_prompt"),
            "label": self._tokenised(settings.label_prompt, "transformer.label_prompt"),
        }

    @property
    def normalize(self) -> bool:
        """Whether the directory normalises its embeddings; for information, `forward` does not."""
        return self.settings.normalize

    @classmethod
    def from_pretrained(cls, directory: str | Path, **options: Any) -> TransformerEncoder:
        """Read a model; see `from_config` and, for the options, xmc.config.TransformerConfig."""
        return cls.from_config(TransformerConfig(str(directory), **options))

    @classmethod
    def from_config(cls, options: TransformerConfig) -> TransformerEncoder:
        """Read the model that a configuration names; what is added to it (projections, adapters) has random weights.

        Only safetensors and GGUF weights are read, and code in a directory is never run.
        Raises ConfigError when the directory or a value cannot be used, with the reason, DependencyError where a package lacks.
        """
        root = Path(options.directory)
        if not root.is_dir() and not (root.suffix == ".gguf" and root.is_file()):
            raise ConfigError(f"transformer.directory {options.directory!r} is not a directory with a model.")
        if options.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"transformer.dtype must be float32 or bfloat16, but is {options.dtype!r}.")
        described = read_modules(root)
        pooling = options.pooling or described.pooling or "mean"
        if pooling not in POOLINGS:
            raise ConfigError(f"{root} asks for the pooling {pooling!r}; xmc has {', '.join(POOLINGS)}.")
        try:
            backbone = read_backbone(described.backbone, options.dtype, options.quantization)
            tokenizer = read_tokenizer(described.backbone)
        except BROKEN as error:
            raise ConfigError(f"{root} cannot be loaded as a transformer with safetensors weights: {error}") from error
        if options.liger:
            _use_liger(backbone)
        settings = TransformerSettings(
            pooling,
            _length(options, described.max_length, positions(backbone), tokenizer.model_max_length),
            described.normalize,
            options.dtype,
            options.projection,
            described.prompt,
            described.lower_case,
            options.micro_batch_size,
            options.attention,
            options.query_prompt,
            options.label_prompt,
            options.images.dimension,
            options.images.most,
            options.quantization,
        )
        lora = None
        if options.lora.rank:
            add_adapters(backbone, options.lora)
            lora, base = options.lora, described.backbone.resolve()
            settings = replace(settings, base=str(base), base_digest=weights_digest(base))
        return cls(backbone, tokenizer, settings, described.dense, lora)

    def featurize(self, texts: Sequence[str], side: Side = "query") -> RaggedTokens:
        """Token ids, uint32, with special tokens and the side's prompt; the text is cut so that all are max_length at most.

        With images configured there is one token `slot` among them, which `forward` replaces by the images.
        """
        before, prefix, after = self._prompts[side]
        room = self.settings.max_length - len(before) - len(after) + int(self.image_dimension > 0)
        keep = slice(-room, None) if self.tokenizer.truncation_side == "left" else slice(room)
        ids: list[list[int]] = []
        for start in range(0, len(texts), _TOKENISE_AT_ONCE):
            some = [self._prepared(prefix, text) for text in texts[start : start + _TOKENISE_AT_ONCE]]
            ids.extend([*before, *own[keep], *after] for own in self._token_ids(some))
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        values = np.fromiter(itertools.chain.from_iterable(ids), np.uint32, count=offsets[-1])
        return RaggedTokens(values, offsets)

    @property
    def features_key(self) -> str:
        """Depends on the tokenizer's content, what is done to a text before it, prompts, and the maximal length."""
        if self._backend is not None:
            content = json.loads(self._backend.to_str())
            del content["truncation"], content["padding"]
        else:
            content = [type(self.tokenizer).__name__, self.tokenizer.get_vocab(), repr(self.tokenizer)]
        settings = self.settings
        rest = [settings.prompt, settings.lower_case, settings.max_length, self.tokenizer.truncation_side]
        digest = fingerprint_of_json([content, rest, self._prompts], sort_keys=True)
        return f"transformer-{digest}"

    def fixed_tokens(self, features: RaggedTokens, side: Side) -> npt.NDArray[np.bool_]:
        """[CLS], [SEP] and their kin, the side's prompt and the images' slot."""
        before, _, after = self._prompts[side]
        lengths = features.lengths
        places = np.arange(len(features.values)) - np.repeat(features.offsets[:-1], lengths)
        of_prompt = (places < len(before)) | (places >= np.repeat(lengths, lengths) - len(after))
        return np.asarray(of_prompt | np.isin(features.values, self._special), bool)

    def require_tokens(self, values: npt.NDArray[np.unsignedinteger]) -> None:
        """Raise InputError for a token that is not in the vocabulary, nor the images' slot where images are configured."""
        most = self.slot + int(self.image_dimension > 0)
        if len(values) and int(values.max()) >= most:
            raise InputError(f"The token {int(values.max())} is not one of the tokenizer's {most:,}.")

    def micro_batches(self, features: RaggedTokens) -> list[npt.NDArray[np.int64]]:
        """Texts in order of length, `micro_batch_size` at a time, so that little is padded."""
        lengths = features.lengths
        if features.images is not None:
            lengths = lengths + np.minimum(features.images.counts, self.settings.most_images)
        order = np.argsort(lengths, kind="stable")
        size = self.micro_batch_size
        count = -(-len(order) // size)
        if self.equal_calls is not None:
            count = self.equal_calls(count)  # the last ones may be empty
        return [order[place * size : (place + 1) * size] for place in range(count)]

    def forward(self, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] float32 (float64 for a backbone in float64) on the module's device.

        Raises InputError for images that the encoder does not take.
        """
        if features.images is not None and self.images_of(features.images) is None:
            raise InputError("This encoder takes no images; set transformer.images.dimension, or leave them out.")
        device = next(self.backbone.parameters()).device
        batches = self.micro_batches(features)
        if not batches:
            return torch.zeros(0, self.dimension, device=device)
        parts = [self._encode(features.take(rows), device) for rows in batches]
        inverse = torch.from_numpy(np.argsort(np.concatenate(batches), kind="stable")).to(device)
        return torch.cat(parts)[inverse]

    def merged(self) -> TransformerEncoder:
        """An encoder whose adapters are part of its weights, for the same embeddings up to rounding; itself without any."""
        if self.lora is None:
            return self
        settings = replace(self.settings, base="", base_digest="")
        whole = TransformerEncoder(
            merged_backbone(self.backbone), self.tokenizer, settings, copy.deepcopy(self._layers())
        )
        whole.load_state_dict(self._own_tensors(), strict=False)
        return whole.eval()

    def save(self, directory: Path) -> None:
        """Write encoder.json, backbone/ in Hugging Face layout, and encoder.safetensors for dense layers and projections.

        With adapters, backbone/ holds these alone, as peft reads them, and the tokenizer.
        """
        layers = [
            {"activation": layer.activation_name, "bias": layer.linear.bias is not None} for layer in self._layers()
        ]
        lora = None if self.lora is None else asdict(self.lora)
        settings = {"kind": self.kind, "transformer": asdict(self.settings), "dense": layers, "lora": lora}
        (directory / "encoder.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if self.lora is None:
            with quietly():
                self.backbone.save_pretrained(directory / "backbone")  # type: ignore[operator]
        else:
            (directory / "backbone").mkdir()
            save_adapters(self.backbone, self.lora, directory / "backbone")
        self.tokenizer.save_pretrained(directory / "backbone")
        save_file(
            {name: value.cpu().contiguous() for name, value in self._own_tensors().items()},
            directory / "encoder.safetensors",
        )

    @classmethod
    def load(cls, directory: Path) -> TransformerEncoder:
        """Read an encoder written by `save`; StoreError when the files, or the backbone that adapters need, do not fit."""
        try:
            stored = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
            settings = TransformerSettings(**stored["transformer"])
            lora = None if stored["lora"] is None else _lora(stored["lora"])
            base = directory / "backbone" if lora is None else _base(settings)
            backbone = read_backbone(base, settings.dtype, settings.quantization)
            tokenizer = read_tokenizer(directory / "backbone")
            if lora is not None:
                load_adapters(backbone, lora, directory / "backbone")
            tensors = load_file(directory / "encoder.safetensors")
            dense = [
                Dense.from_tensors(
                    tensors[f"dense.{i}.linear.weight"], tensors.get(f"dense.{i}.linear.bias"), layer["activation"]
                )
                for i, layer in enumerate(stored["dense"])
            ]
            loaded = cls(backbone, tokenizer, settings, dense, lora)
            outcome = loaded.load_state_dict(tensors, strict=False)
            lacking = [name for name in outcome.missing_keys if not name.startswith("backbone.")]
            if lacking or outcome.unexpected_keys:
                raise ValueError(f"encoder.safetensors does not fit: {[*lacking, *outcome.unexpected_keys][0]}.")
        except (*BROKEN, ConfigError) as error:
            raise StoreError(f"{directory} does not hold a transformer encoder that can be read: {error}") from error
        return loaded

    def _own_tensors(self) -> dict[str, Tensor]:
        """What is not the backbone's."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def _layers(self) -> list[Dense]:
        return [layer for layer in self.dense if isinstance(layer, Dense)]

    def _prepared(self, prefix: str, text: str) -> str:
        text = prefix + (text or "")
        return text.lower() if self.settings.lower_case else text

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        """Of each text alone, without special tokens around it."""
        if self._backend is not None:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        encoded = self.tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        return list(encoded["input_ids"])

    def _special_tokens_around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a text, with "eos" pooling at least that one after."""
        inner = self._token_ids(["a"])[0]
        whole = (
            self.tokenizer("a", verbose=False)["input_ids"] if self._backend is None else self._backend.encode("a").ids
        )
        place = next((i for i in range(len(whole) + 1) if whole[i : i + len(inner)] == inner), None)
        if place is None:
            raise ConfigError(
                "The tokenizer changes a text's tokens when it puts special ones around them; xmc does not."
            )
        return list(whole[:place]), list(whole[place + len(inner) :])

    def _tokenised(self, template: str | None, key: str) -> tuple[list[int], str, list[int]]:
        """Tokens before the text, what is tokenised with it (blanks, or the directory's prompt), and tokens after it."""
        prompt = Prompt.parse("{text}" if template is None else template, key, self.image_dimension > 0)
        first, last = self._around
        before, after = (
            [token for piece in pieces for token in ([self.slot] if piece is None else self._token_ids([piece])[0])]
            for pieces in (prompt.before, prompt.after)
        )
        slot_first = before[:1] == [self.slot] and "{images}" not in (template or "")
        before = [self.slot, *first, *before[1:]] if slot_first else [*first, *before]
        after = [*after, *last]
        if self.settings.pooling == "eos":
            end = self.tokenizer.eos_token_id
            if end is None:
                raise ConfigError(
                    "transformer.pooling is eos, but the tokenizer has no end-of-sequence token; use last."
                )
            if after[-1:] != [end]:
                after.append(end)
        taken = len(before) + len(after) - int(self.image_dimension > 0)
        if taken >= self.settings.max_length:
            raise ConfigError(
                f"{key} and special tokens take {taken} tokens, which leaves a text none of transformer.max_length "
                f"{self.settings.max_length}; raise it."
            )
        return before, self.settings.prompt if template is None else prompt.blank, after

    def _encode(self, features: RaggedTokens, device: torch.device) -> Tensor:
        if not len(features):  # for the sake of the other processes: the backbone runs on an empty text
            return self._encode(RaggedTokens(features.values, np.zeros(2, np.int64)), device)[:0]
        values, lengths, pictures = self._with_images(features)
        sizes = torch.from_numpy(lengths)
        width = max(1, int(sizes.max()))
        mask = torch.arange(width)[None, :] < sizes[:, None]
        padding = self.tokenizer.pad_token_id
        ids = torch.full(mask.shape, 0 if padding is None else padding, dtype=torch.int64)
        ids[mask] = torch.from_numpy(values.astype(np.int64))
        if device.type == "cuda":
            ids, mask = ids.pin_memory().to(device, non_blocking=True), mask.pin_memory().to(device, non_blocking=True)
        # Attention over nothing is not a number, and its gradient too: an empty sequence attends to one padding token.
        attention = mask.clone()
        attention[:, 0] = True
        places = ids == self.slot if self.image_projection is not None else None
        inputs = {"input_ids": ids} if places is None else {"inputs_embeds": self._inputs(ids, places, pictures)}
        seen = attention.long()
        if self.settings.attention == "bidirectional":
            seen = see_everything(attention, next(self.backbone.parameters()).dtype)
        hidden: Tensor = self.backbone(**inputs, attention_mask=seen).last_hidden_state
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        pooled = pool(hidden, mask, places, self.settings.pooling)
        for layer in self._layers():
            pooled = layer.forward(pooled)
        return pooled if self.projection is None else self.projection.forward(pooled)

    def _with_images(
        self, features: RaggedTokens
    ) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64], npt.NDArray[np.float16] | None]:
        """Tokens with the slot once for each image that is used, the lengths of sequences, and the images [m, I]."""
        if not self.image_dimension:
            return features.values, features.lengths, None
        rows = np.repeat(np.arange(len(features)), features.lengths)
        counts = np.zeros(len(features), np.int64)
        pictures = np.zeros((0, self.image_dimension), np.float16)
        if features.images is not None:
            counts = np.minimum(features.images.counts, self.settings.most_images)
            counts *= np.bincount(rows[features.values == self.slot], minlength=len(features))
            rank = np.arange(len(features.images.values)) - np.repeat(
                features.images.offsets[:-1], features.images.counts
            )
            pictures = features.images.values[rank < np.repeat(counts, features.images.counts)]
        repeats = np.where(features.values == self.slot, counts[rows], 1)
        lengths = np.bincount(rows, weights=repeats, minlength=len(features)).astype(np.int64)
        return np.repeat(features.values, repeats), lengths, pictures

    def _inputs(self, ids: Tensor, places: Tensor, pictures: npt.NDArray[np.float16] | None) -> Tensor:
        """Input embeddings [n, T, W] of tokens, and of images at their places."""
        table: Any = self.backbone.get_input_embeddings()  # type: ignore[operator]
        embedded: Tensor = table(torch.where(places, 0, ids))
        if pictures is None or not len(pictures) or self.image_projection is None:
            return embedded
        own = torch.from_numpy(np.ascontiguousarray(pictures)).to(embedded.device)
        projected = self.image_projection(own.to(self.image_projection.weight))
        return embedded.masked_scatter(places[:, :, None], projected.to(embedded))


def _length(options: TransformerConfig, described: int | None, known: int | None, tokenizer_length: int) -> int:
    """The maximal length, as asked for or as the directory allows, beside as many images as are used."""
    room = None if known is None else known - (options.images.most if options.images.dimension else 0)
    if options.max_length is None:
        limits = (room, described or min(_DEFAULT_LENGTH, tokenizer_length))
        length = int(min(limit for limit in limits if limit is not None))
    else:
        length = options.max_length
    if length < 3 or (room is not None and length > room):
        allowed = "3 or more" if room is None else f"from 3 to {room}"
        raise ConfigError(
            f"transformer.max_length must be {allowed} for the model in {options.directory}, but is {length}."
        )
    return length


def _use_liger(backbone: nn.Module) -> None:
    require_package("liger_kernel", "transformer.liger is true", "liger-kernel")
    from liger_kernel.transformers import monkey_patch

    kind = str(backbone.config.model_type)  # type: ignore[union-attr]
    if kind not in monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ConfigError(f"liger-kernel has no kernels for a model of type {kind}; set transformer.liger to false.")
    # Its losses, which it puts in place by default, are those of a language model's head, and there is none.
    monkey_patch._apply_liger_kernel_to_instance(backbone, cross_entropy=False, fused_linear_cross_entropy=False)


def _lora(stored: dict[str, Any]) -> LoRAConfig:
    return LoRAConfig(**{**stored, "target": tuple(stored["target"])})


def _base(settings: TransformerSettings) -> Path:
    """The directory of the backbone that adapters were trained on; ValueError where it is gone or another."""
    base = Path(settings.base)
    remedy = "Put it back, or load a run that `xmc export` made whole while it was there."
    if not base.exists():
        raise ValueError(f"its adapters need the backbone in {base}, which is not there. {remedy}")
    if weights_digest(base) != settings.base_digest:
        raise ValueError(f"its adapters were trained on other weights than those in {base}. {remedy}")
    return base
