"""The static encoder: a weighted sum of hashed feature vectors. No vocabulary, no pretrained weights, no matrix product."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xmc.config import StaticConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side, TokenCost
from xmc.encoders.static.feature_table import Bags, bag_sums, locate, weigh
from xmc.encoders.static.formulas import KIND_BITS, KINDS
from xmc.encoders.static.hashing import hash_features
from xmc.encoders.static.words import pairs_of_words, words_of_text
from xmc.errors import ConfigError, StoreError, boundary
from xmc.kernels.parallel import several_callers_may_run
from xmc.storage.expected_tensors import FLOATS, Expected, torch_tensors

__all__ = ["FeatureTable", "StaticEncoder"]


class FeatureTable(nn.Module):
    """The table and the feature weights, with gradients that are kept as factors instead of being built.

    A backward pass appends (bags, gradient of the bags' sums) to `pending`; the gradient of the table is bagsᵀ · gradient.
    The optimizer (xmc.training.optimizers) forms it one touched row at a time, in cache, so that a step costs what it
    touches and no memory of the table's size. Lives on the CPU.
    """

    def __init__(self, vectors: Tensor, log_weights: Tensor) -> None:
        """vectors: float32 [rows, D]. log_weights: float32 [slots]."""
        super().__init__()
        self.vectors, self.log_weights = nn.Parameter(vectors), nn.Parameter(log_weights)
        self.pending: list[tuple[Bags, Tensor]] = []

    @classmethod
    def drawn(cls, config: StaticConfig, generator: torch.Generator | None = None) -> FeatureTable:
        """Random vectors, and weights of 1."""
        vectors = torch.randn(config.table_rows, config.dimension, generator=generator)
        return cls(vectors.div_(config.dimension**0.5), torch.zeros(config.weight_slots))

    def forward(self, bags: Bags) -> Tensor:
        """Sums [n, D] of the bags."""
        total: Tensor = _BagSums.apply(self.vectors, self, bags)  # type: ignore[no-untyped-call]
        return total


class _BagSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: FeatureTable, bags: Bags) -> Tensor:
        out = torch.empty(len(bags.offsets) - 1, vectors.shape[1])
        bag_sums(vectors.numpy(), bags.rows, bags.coefficients, bags.offsets, out.numpy())
        ctx.table, ctx.bags = table, bags
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.table.pending.append((ctx.bags, gradients[0].contiguous()))
        return None, None, None


class StaticEncoder(Encoder):
    """e(text) = Σ_f scale(kind of f) · exp(w_f) · T[row of f], over the text's words, word bigrams and character n-grams.

    All kinds of features share one table T, each probing it with its own hash, as in Coleman et al., Unified Embedding
    (NeurIPS 2023); the weights w are learned (a learned inverse document frequency).
    """

    kind: ClassVar[str] = "static"
    has_tokenizer: ClassVar[bool] = False

    def __init__(
        self, config: StaticConfig, generator: torch.Generator | None = None, table: FeatureTable | None = None
    ) -> None:
        """table: of the sizes that the configuration names; drawn by the generator where None."""
        super().__init__()
        self.config = config
        self.dimension = config.dimension
        self.table = FeatureTable.drawn(config, generator) if table is None else table

    @classmethod
    def from_config(cls, options: StaticConfig, generator: torch.Generator) -> StaticEncoder:
        """An encoder with random vectors, drawn by the generator, and feature weights of 1."""
        return cls(options, generator)

    def featurize(self, texts: Sequence[str], side: Side = "query") -> RaggedTokens:
        """Hashed features of each text, uint32 (see xmc.encoders.static.hashing)."""
        return hash_features(texts)

    @property
    def features_key(self) -> str:
        """Features depend on the hashing code alone."""
        return "static-1"

    def forward(self, features: RaggedTokens) -> Tensor:
        """Embeddings [n, D] float32 on the CPU; a text without features gives a zero row."""
        total: Tensor = self.table(self.bags(features))
        return total

    @torch.no_grad()
    def word_vectors(self, text: str) -> tuple[list[str], Tensor]:
        """See Encoder. A bigram's vector is shared equally by its two words."""
        words = words_of_text(text)
        pairs = pairs_of_words(words)
        sums = self(self.featurize([*words, *pairs]))
        alone, joined = sums[: len(words)], sums[len(words) :]
        vectors = alone.clone()
        halves = (
            joined - alone[:-1] - alone[1:]
        ) / 2  # what is in a pair of words and in neither of them: their bigram
        vectors[:-1] += halves
        vectors[1:] += halves
        return words, vectors

    def bags(self, features: RaggedTokens) -> Bags:
        """Where the features lie in the table, and with what coefficient they enter the sum."""
        rows, coefficients = np.empty(len(features.values), np.int32), np.empty(len(features.values), np.float32)
        scales = np.zeros(1 << KIND_BITS, np.float32)
        scales[: len(KINDS)] = self.config.kind_scales
        weights = np.exp(self.table.log_weights.detach().numpy())
        locate(features.values, self.config.table_rows, rows)
        weigh(features.values, scales, weights, coefficients)
        return Bags(features.values, rows, coefficients, features.offsets)

    @property
    def is_thread_safe(self) -> bool:
        """Whether numba has a threading layer that takes several callers; False until that is known."""
        return several_callers_may_run()

    def token_cost(self) -> TokenCost:
        """A feature's row is read, and read and updated; its number, row and coefficient are kept, four bytes each."""
        return TokenCost(2.0 * self.dimension, 4.0 * self.dimension, 12.0)

    def gradient_bytes(self) -> int:
        """None is left: gradients are kept as their factors."""
        return 0

    def save(self, directory: Path) -> None:
        """Write encoder.json and encoder.safetensors."""
        options = self.config.to_mapping()
        del options["kind"]
        settings = {"kind": self.kind, "static": options}
        (directory / "encoder.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(
            {name: value.contiguous() for name, value in self.state_dict().items()}, directory / "encoder.safetensors"
        )

    @classmethod
    def load(cls, directory: Path) -> StaticEncoder:
        """Read an encoder written by `save`; StoreError when the files do not fit together."""
        file = directory / "encoder.json"
        with boundary(StoreError, f"{directory} does not hold a static encoder that this version can read"):
            try:
                settings = json.loads(file.read_text(encoding="utf-8"))["static"]
                config = StaticConfig.from_mapping(settings, source=str(file))
                expected = {
                    "table.vectors": Expected((config.table_rows, config.dimension), FLOATS),
                    "table.log_weights": Expected((config.weight_slots,), FLOATS),
                }
                read = torch_tensors(directory / "encoder.safetensors", expected)
            except (ConfigError, StoreError) as error:
                raise ValueError(str(error)) from error
        tensors = {name: tensor.float() for name, tensor in read.items()}
        # They take the place of the table's own parameters; nothing is drawn.
        return cls(config, table=FeatureTable(tensors["table.vectors"], tensors["table.log_weights"]))
