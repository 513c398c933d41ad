"""The transformer encoder: any Hugging Face encoder or sentence-transformers directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.sentence_transformers import Dense, read_modules
from xmc.errors import ConfigError, InputError, StoreError

__all__ = ["TransformerEncoder", "TransformerSettings"]

_TOKENISE_AT_ONCE = 4096


@dataclass(frozen=True)
class TransformerSettings:
    """What belongs to the encoder besides the backbone: saved in encoder.json."""

    pooling: str
    max_length: int
    normalize: bool
    dtype: str
    projection: int | None
    prompt: str = ""


class TransformerEncoder(Encoder):
    """Tokens through a transformer, pooled into one vector, through dense layers where the directory has some.

    pooling "mean" averages the last hidden states over the text's tokens, "cls" takes the first token's. A text's embedding
    does not depend on the other texts of a batch. Token dropout removes tokens (never special ones) from the sequence.
    """

    kind: ClassVar[str] = "transformer"

    def __init__(
        self, backbone: nn.Module, tokenizer: Any, settings: TransformerSettings, dense: Sequence[Dense] = ()
    ) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.settings = backbone, tokenizer, settings
        self.dense = nn.ModuleList(dense)
        config: Any = backbone.config
        width = dense[-1].linear.out_features if dense else int(config.hidden_size)
        self.projection = nn.Linear(width, settings.projection, bias=False) if settings.projection else None
        self.dimension = settings.projection or width
        self.micro_batch_size = 128
        self._special = torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.int64)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        pooling: str | None = None,
        max_length: int | None = None,
        projection: int | None = None,
        dtype: str = "float32",
    ) -> TransformerEncoder:
        """Read a model directory; only safetensors weights are read, and code in the directory is never run.

        pooling, max_length: by default what a sentence-transformers directory says, else "mean" and the tokenizer's limit
        (512 where it has none). Raises ConfigError when the directory cannot be used, with the reason.
        """
        from transformers import AutoModel, AutoTokenizer

        root = Path(directory)
        if not root.is_dir():
            raise ConfigError(f"transformer.directory {str(directory)!r} is not a directory with a model.")
        described = read_modules(root)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                described.backbone, trust_remote_code=False, local_files_only=True
            )
            backbone = AutoModel.from_pretrained(
                described.backbone,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=getattr(torch, dtype),
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(
                f"{directory} cannot be loaded as a transformer with safetensors weights: {error}"
            ) from error
        limit = max_length or described.max_length or _limit(tokenizer, backbone)
        settings = TransformerSettings(
            pooling or described.pooling or "mean", limit, described.normalize, dtype, projection, described.prompt
        )
        if settings.pooling not in ("mean", "cls"):
            raise ConfigError(f"{directory} asks for the pooling {settings.pooling!r}; xmc has mean and cls.")
        return cls(backbone, tokenizer, settings, described.dense)

    def featurize(self, texts: Sequence[str]) -> RaggedTokens:
        """Token ids with special tokens, cut at max_length."""
        ids: list[list[int]] = []
        for start in range(0, len(texts), _TOKENISE_AT_ONCE):
            chunk = [self.settings.prompt + (text or "") for text in texts[start : start + _TOKENISE_AT_ONCE]]
            encoded = self.tokenizer(
                chunk,
                truncation=True,
                max_length=self.settings.max_length,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            ids.extend(encoded["input_ids"])
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        values = np.fromiter((token for row in ids for token in row), np.uint32, count=offsets[-1])
        return RaggedTokens(values, offsets)

    @property
    def features_key(self) -> str:
        """Depends on the tokenizer's content, the prompt and the maximal length."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        digest = hashlib.sha256((content + "\0" + self.settings.prompt).encode()).hexdigest()
        return f"transformer-{digest}-{self.settings.max_length}"

    def forward(self, features: RaggedTokens, dropout: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Embeddings [n, D] float32 on the module's device.

        Texts are encoded in order of length, `micro_batch_size` at a time, so that little is padded.
        """
        device = next(self.backbone.parameters()).device
        if not len(features):
            return torch.zeros(0, self.dimension, device=device)
        if dropout > 0:
            features = self._drop(features, dropout, generator)
        order = np.argsort(features.lengths, kind="stable")
        parts = [
            self._encode(features.take(order[start : start + self.micro_batch_size]), device)
            for start in range(0, len(order), self.micro_batch_size)
        ]
        inverse = torch.from_numpy(np.argsort(order, kind="stable")).to(device)
        return torch.cat(parts)[inverse]

    def save(self, directory: Path) -> None:
        """Write encoder.json, backbone/ in Hugging Face layout, and encoder.safetensors for dense layers and projection."""
        layers = [
            {"activation": layer.activation_name, "bias": layer.linear.bias is not None} for layer in self._layers()
        ]
        settings = {"kind": self.kind, "transformer": asdict(self.settings), "dense": layers}
        (directory / "encoder.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
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
            encoder = cls.from_pretrained(
                directory / "backbone", settings.pooling, settings.max_length, None, settings.dtype
            )
            tensors = load_file(directory / "encoder.safetensors")
            dense = [
                Dense.from_tensors(
                    tensors[f"dense.{i}.linear.weight"], tensors.get(f"dense.{i}.linear.bias"), layer["activation"]
                )
                for i, layer in enumerate(stored["dense"])
            ]
            loaded = cls(encoder.backbone, encoder.tokenizer, settings, dense)
            if loaded.projection is not None:
                loaded.projection.load_state_dict({"weight": tensors["projection.weight"]})
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ConfigError) as error:
            raise StoreError(f"{directory} does not hold a transformer encoder that can be read: {error}") from error
        return loaded

    def _layers(self) -> list[Dense]:
        return [layer for layer in self.dense if isinstance(layer, Dense)]

    def _encode(self, features: RaggedTokens, device: torch.device) -> Tensor:
        lengths = torch.from_numpy(features.lengths)
        width = max(1, int(lengths.max()))
        mask = torch.arange(width)[None, :] < lengths[:, None]
        padding = self.tokenizer.pad_token_id
        ids = torch.full(mask.shape, 0 if padding is None else padding, dtype=torch.int64)
        ids[mask] = torch.from_numpy(features.values.astype(np.int64))
        ids, mask = ids.to(device), mask.to(device)
        hidden: Tensor = self.backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        if self.settings.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = mask[:, :, None].to(hidden)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1.0)
        for layer in self._layers():
            pooled = layer.forward(pooled)
        return pooled if self.projection is None else self.projection.forward(pooled)

    def _drop(self, features: RaggedTokens, dropout: float, generator: torch.Generator | None) -> RaggedTokens:
        if not 0 <= dropout < 1:
            raise InputError(f"Token dropout must be in [0, 1), but is {dropout}.")
        values = torch.from_numpy(features.values.astype(np.int64))
        kept = torch.rand(len(values), generator=generator) >= dropout
        kept |= torch.isin(values, self._special)
        mask = kept.numpy()
        ends = np.concatenate([[0], np.cumsum(mask)])[features.offsets]
        return RaggedTokens(features.values[mask], ends.astype(np.int64))


def _limit(tokenizer: Any, backbone: nn.Module) -> int:
    positions = int(getattr(backbone.config, "max_position_embeddings", 512) or 512)
    return int(min(tokenizer.model_max_length, positions, 512))
