"""The transformer encoder: any Hugging Face encoder or sentence-transformers directory."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side
from xmc.encoders.sentence_transformers import Dense, read_modules
from xmc.errors import ConfigError, StoreError

__all__ = ["TransformerEncoder", "TransformerSettings"]

_TOKENISE_AT_ONCE = 4096
_DEFAULT_LENGTH = 512
_BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError)
"""What transformers and safetensors raise for files that are missing, cut short or do not fit together."""


@dataclass(frozen=True)
class TransformerSettings:
    """What belongs to the encoder besides the backbone: saved in encoder.json.

    lower_case, prompt: done to a text before it is tokenised, as the sentence-transformers directory says.
    """

    pooling: str
    max_length: int
    normalize: bool
    dtype: str
    projection: int | None
    prompt: str = ""
    lower_case: bool = False
    micro_batch_size: int = 128


class TransformerEncoder(Encoder):
    """Tokens through a transformer, pooled into one vector, through dense layers where the directory has some.

    pooling "mean" averages the last hidden states over the text's tokens, "cls" takes the first token's. A text's embedding
    does not depend on the other texts of a batch. Token dropout removes tokens (never special ones) from the sequence.
    A sequence without any token, as some tokenizers give for an empty text, is pooled to zero.
    """

    kind: ClassVar[str] = "transformer"

    def __init__(
        self, backbone: nn.Module, tokenizer: Any, settings: TransformerSettings, dense: Sequence[Dense] = ()
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        self.dense = nn.ModuleList(dense)
        config: Any = backbone.config
        width = int(config.hidden_size)
        for layer in dense:
            if layer.linear.in_features != width:
                raise ConfigError(f"A Dense module takes {layer.linear.in_features} numbers, but is given {width}.")
            width = layer.linear.out_features
        self.projection = nn.Linear(width, settings.projection, bias=False) if settings.projection else None
        self.dimension = settings.projection or width
        self.micro_batch_size = settings.micro_batch_size
        self.equal_calls: Callable[[int], int] | None = None
        """Given how many micro-batches this process has, how many every process goes through: where they compute together."""
        self._special = sorted(set(tokenizer.all_special_ids))
        # Set once: setting it at every call is not safe where threads share the encoder.
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_padding()
            self._backend.enable_truncation(settings.max_length, direction=tokenizer.truncation_side)

    @property
    def normalize(self) -> bool:
        """Whether the directory normalises its embeddings; for information, `forward` does not."""
        return self.settings.normalize

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        pooling: str | None = None,
        max_length: int | None = None,
        projection: int | None = None,
        dtype: str = "float32",
        micro_batch_size: int = 128,
    ) -> TransformerEncoder:
        """Read a model directory; only safetensors weights are read, and code in the directory is never run.

        pooling: by default what a sentence-transformers directory says, else "mean".
        max_length: by default what such a directory says, else what the tokenizer allows, up to 512; never more than the
            backbone has positions for.
        projection: the output dimension of an added linear layer, without bias, with random weights; None for no layer.
        dtype: "float32" or "bfloat16", of the backbone; embeddings are float32.
        micro_batch_size: texts encoded at once, in order of length.

        Raises ConfigError when the directory or a value cannot be used, with the reason.
        """
        root = Path(directory)
        if not root.is_dir():
            raise ConfigError(f"transformer.directory {str(directory)!r} is not a directory with a model.")
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"transformer.dtype must be float32 or bfloat16, but is {dtype!r}.")
        described = read_modules(root)
        pooling = pooling or described.pooling or "mean"
        if pooling not in ("mean", "cls"):
            raise ConfigError(f"{directory} asks for the pooling {pooling!r}; xmc has mean and cls.")
        try:
            backbone, tokenizer = _read_backbone(described.backbone, dtype)
        except _BROKEN as error:
            raise ConfigError(
                f"{directory} cannot be loaded as a transformer with safetensors weights: {error}"
            ) from error
        positions = _positions(backbone)
        if max_length is None:
            known = (positions, described.max_length or min(_DEFAULT_LENGTH, tokenizer.model_max_length))
            length = int(min(limit for limit in known if limit is not None))
        else:
            length = max_length
        if length < 3 or (positions is not None and length > positions):
            allowed = "3 or more" if positions is None else f"from 3 to {positions}"
            raise ConfigError(
                f"transformer.max_length must be {allowed} for the model in {directory}, but is {length}."
            )
        settings = TransformerSettings(
            pooling,
            length,
            described.normalize,
            dtype,
            projection,
            described.prompt,
            described.lower_case,
            micro_batch_size,
        )
        return cls(backbone, tokenizer, settings, described.dense)

    def featurize(self, texts: Sequence[str], side: Side = "query") -> RaggedTokens:
        """Token ids with special tokens, uint32, cut at max_length."""
        ids: list[list[int]] = []
        for start in range(0, len(texts), _TOKENISE_AT_ONCE):
            ids.extend(self._token_ids([self._prepared(text) for text in texts[start : start + _TOKENISE_AT_ONCE]]))
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        values = np.fromiter(itertools.chain.from_iterable(ids), np.uint32, count=offsets[-1])
        return RaggedTokens(values, offsets)

    @property
    def features_key(self) -> str:
        """Depends on the tokenizer's content, what is done to a text before it, and the maximal length."""
        if self._backend is not None:
            content = json.loads(self._backend.to_str())
            del content["truncation"], content["padding"]
        else:
            content = [type(self.tokenizer).__name__, self.tokenizer.get_vocab(), repr(self.tokenizer)]
        settings = self.settings
        rest = [settings.prompt, settings.lower_case, settings.max_length, self.tokenizer.truncation_side]
        digest = hashlib.sha256(json.dumps([content, rest], sort_keys=True).encode()).hexdigest()
        return f"transformer-{digest}"

    @property
    def special_tokens(self) -> Sequence[int]:
        """[CLS], [SEP] and their kin."""
        return self._special

    def micro_batches(self, features: RaggedTokens) -> list[npt.NDArray[np.int64]]:
        """Texts in order of length, `micro_batch_size` at a time, so that little is padded."""
        order = np.argsort(features.lengths, kind="stable")
        size = self.micro_batch_size
        count = -(-len(order) // size)
        if self.equal_calls is not None:
            count = self.equal_calls(count)  # the last ones may be empty
        return [order[place * size : (place + 1) * size] for place in range(count)]

    def forward(self, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] float32 (float64 for a backbone in float64) on the module's device."""
        device = next(self.backbone.parameters()).device
        batches = self.micro_batches(features)
        if not batches:
            return torch.zeros(0, self.dimension, device=device)
        parts = [self._encode(features.take(rows), device) for rows in batches]
        inverse = torch.from_numpy(np.argsort(np.concatenate(batches), kind="stable")).to(device)
        return torch.cat(parts)[inverse]

    def save(self, directory: Path) -> None:
        """Write encoder.json, backbone/ in Hugging Face layout, and encoder.safetensors for dense layers and projection."""
        layers = [
            {"activation": layer.activation_name, "bias": layer.linear.bias is not None} for layer in self._layers()
        ]
        settings = {"kind": self.kind, "transformer": asdict(self.settings), "dense": layers}
        (directory / "encoder.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        with _no_progress_bar():
            self.backbone.save_pretrained(directory / "backbone")  # type: ignore[operator]
        self.tokenizer.save_pretrained(directory / "backbone")
        extra = {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}
        save_file({name: value.cpu().contiguous() for name, value in extra.items()}, directory / "encoder.safetensors")

    @classmethod
    def load(cls, directory: Path) -> TransformerEncoder:
        """Read an encoder written by `save`; StoreError when the files do not fit together."""
        try:
            stored = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
            settings = TransformerSettings(**stored["transformer"])
            backbone, tokenizer = _read_backbone(directory / "backbone", settings.dtype)
            tensors = load_file(directory / "encoder.safetensors")
            dense = [
                Dense.from_tensors(
                    tensors[f"dense.{i}.linear.weight"], tensors.get(f"dense.{i}.linear.bias"), layer["activation"]
                )
                for i, layer in enumerate(stored["dense"])
            ]
            loaded = cls(backbone, tokenizer, settings, dense)
            if loaded.projection is not None:
                loaded.projection.load_state_dict({"weight": tensors["projection.weight"]})
        except (*_BROKEN, ConfigError) as error:
            raise StoreError(f"{directory} does not hold a transformer encoder that can be read: {error}") from error
        return loaded

    def _layers(self) -> list[Dense]:
        return [layer for layer in self.dense if isinstance(layer, Dense)]

    def _prepared(self, text: str) -> str:
        text = self.settings.prompt + (text or "")
        return text.lower() if self.settings.lower_case else text

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        if self._backend is not None:
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts)]
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.settings.max_length, padding=False, verbose=False
        )
        return list(encoded["input_ids"])

    def _encode(self, features: RaggedTokens, device: torch.device) -> Tensor:
        if not len(features):  # for the sake of the other processes: the backbone runs on an empty text
            return self._encode(RaggedTokens(features.values, np.zeros(2, np.int64)), device)[:0]
        lengths = torch.from_numpy(features.lengths)
        width = max(1, int(lengths.max()))
        mask = torch.arange(width)[None, :] < lengths[:, None]
        padding = self.tokenizer.pad_token_id
        ids = torch.full(mask.shape, 0 if padding is None else padding, dtype=torch.int64)
        ids[mask] = torch.from_numpy(features.values.astype(np.int64))
        if device.type == "cuda":
            ids, mask = ids.pin_memory().to(device, non_blocking=True), mask.pin_memory().to(device, non_blocking=True)
        # Attention over nothing is not a number, and its gradient too: an empty sequence attends to one padding token.
        attention = mask.clone()
        attention[:, 0] = True
        hidden: Tensor = self.backbone(input_ids=ids, attention_mask=attention.long()).last_hidden_state
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        weights = mask[:, :, None].to(hidden)
        if self.settings.pooling == "cls":
            pooled = hidden[:, 0] * weights[:, 0]
        else:
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1.0)
        for layer in self._layers():
            pooled = layer.forward(pooled)
        return pooled if self.projection is None else self.projection.forward(pooled)


def _read_backbone(directory: Path, dtype: str) -> tuple[nn.Module, Any]:
    """The model and the tokenizer in a directory in Hugging Face layout; ValueError where the weights do not fill the model."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    with _no_progress_bar():
        backbone, loading = AutoModel.from_pretrained(
            directory,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
    if backbone.config.is_encoder_decoder:
        raise ValueError("it is an encoder with a decoder; xmc encodes with models that have one stack of layers.")
    # Embeddings are pooled from the last layer; what a checkpoint holds or lacks of BERT's own pooler does not matter.
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} more.")
    return backbone, tokenizer


def _positions(backbone: nn.Module) -> int | None:
    """How many tokens the backbone has learned positions for; None where it has no table of them."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return None
    # RoBERTa and its kin count positions from the padding token's id + 1.
    return table.num_embeddings if table.padding_idx is None else table.num_embeddings - table.padding_idx - 1


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Reading and writing weights takes a moment; transformers' own bars would also be drawn where there is no terminal."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
