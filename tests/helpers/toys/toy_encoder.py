"""An encoder from outside of the package: the mean of vectors of hashed words."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmc.config import ENCODER_SECTIONS, EncoderConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side
from xmc.encoders.registry import ENCODERS


class ToyWordsConfig(EncoderConfig):
    """Keys of the encoder "toy-words"."""

    default_learning_rate: ClassVar[float] = 0.05

    kind: Literal["toy-words"] = "toy-words"
    """Vectors of hashed words."""
    dimension: int = 16
    """Length D of an embedding."""
    rows: int = 2048
    """Number of vectors."""


class ToyWords(Encoder):
    """The mean of the vectors of a text's words; zero for a text without words."""

    kind: ClassVar[str] = "toy-words"

    def __init__(self, dimension: int, rows: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.dimension, self.rows = dimension, rows
        self.vectors = nn.Parameter(torch.randn(rows, dimension, generator=generator))

    @classmethod
    def from_config(cls, options: ToyWordsConfig, generator: torch.Generator) -> ToyWords:
        return cls(options.dimension, options.rows, generator)

    def featurize(self, texts: Sequence[str], side: Side = "query") -> RaggedTokens:
        words = [[zlib.crc32(word.encode()) % self.rows for word in (text or "").lower().split()] for text in texts]
        offsets = np.cumsum([0, *map(len, words)], dtype=np.int64)
        return RaggedTokens(np.array([row for text in words for row in text], np.uint32), offsets)

    @property
    def features_key(self) -> str:
        return f"toy-words-{self.rows}"

    def forward(self, features: RaggedTokens) -> Tensor:
        rows = torch.from_numpy(features.values.astype(np.int64)).to(self.vectors.device)
        offsets = torch.from_numpy(features.offsets).to(self.vectors.device)
        return nn.functional.embedding_bag(rows, self.vectors, offsets, mode="mean", include_last_offset=True)

    def save(self, directory: Path) -> None:
        settings = {"kind": self.kind, "dimension": self.dimension, "rows": self.rows}
        (directory / "encoder.json").write_text(json.dumps(settings), encoding="utf-8")
        save_file({"vectors": self.vectors.detach().cpu().contiguous()}, directory / "encoder.safetensors")

    @classmethod
    def load(cls, directory: Path) -> ToyWords:
        settings = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))
        encoder = cls(settings["dimension"], settings["rows"])
        encoder.load_state_dict(load_file(directory / "encoder.safetensors"))
        return encoder


ENCODER_SECTIONS.register("toy-words", ToyWordsConfig)
ENCODERS.register("toy-words", ToyWords)
