"""The model: a query tower, a label tower (the same one by default), residual label vectors, a temperature."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmc.config import TrainConfig
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.static import StaticEncoder
from xmc.encoders.transformer import TransformerEncoder
from xmc.errors import StoreError

__all__ = ["DualEncoder", "build_encoder", "keep_vectors"]

Encode = Callable[[Encoder, RaggedTokens], Tensor]
_ENCODERS: dict[str, type[Encoder]] = {"static": StaticEncoder, "transformer": TransformerEncoder}


class DualEncoder(nn.Module):
    """q = unit(e_Q(query)), z = unit(unit(e_L(label)) + r_label), scores q·z / τ.

    e_Q and e_L are encoders (one and the same where towers are shared), unit is L2 normalisation (nothing, where `normalize`
    is False) and r the optional residual label vectors [L, D], which start at zero; a label that was not trained on has none.
    """

    def __init__(
        self,
        query_encoder: Encoder,
        label_encoder: Encoder,
        labels: int = 0,
        temperature: float = 1.0,
        learn_temperature: bool = False,
        normalize: bool = True,
    ) -> None:
        """`labels`: how many residual label vectors to hold; 0 for none."""
        super().__init__()
        self.query_encoder, self.label_encoder, self.normalize = query_encoder, label_encoder, normalize
        self.label_vectors = nn.Parameter(torch.zeros(labels, query_encoder.dimension)) if labels else None
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log(), requires_grad=learn_temperature)

    @property
    def dimension(self) -> int:
        """Length D of an embedding."""
        return self.query_encoder.dimension

    @property
    def temperature(self) -> Tensor:
        """τ, differentiable where it is learned."""
        return self.log_temperature.exp()

    def queries(self, features: RaggedTokens, encode: Encode = Encoder.__call__) -> Tensor:
        """Unit embeddings [n, D] of queries. encode: how an encoder is called, see xmc.training.gradient_cache."""
        return self._unit(encode(self.query_encoder, features))

    def label_texts(self, features: RaggedTokens, encode: Encode = Encoder.__call__) -> Tensor:
        """Unit embeddings [n, D] of label texts, without residual vectors. encode: as in `queries`."""
        return self._unit(encode(self.label_encoder, features))

    def with_vectors(self, embeddings: Tensor, rows: Tensor, keep: Tensor | None = None) -> Tensor:
        """Unit embeddings [n, D] of the labels `rows` (int64 [n], unique), given those of their texts.

        keep: bool [n], the labels whose residual vectors are added; None for all.
        """
        if self.label_vectors is None:
            return embeddings
        vectors = nn.functional.embedding(rows.to(self.label_vectors.device), self.label_vectors, sparse=True)
        vectors = vectors.to(embeddings.device)  # from the host, where they are left there
        if keep is not None:
            vectors = vectors * keep[:, None].to(vectors)
        embeddings = embeddings + vectors
        del vectors  # [n, D], not to be held while the sum is normalised
        return self._unit(embeddings)

    def place(self, device: torch.device, vectors_on_host: bool = False) -> DualEncoder:
        """Move the model to a device, perhaps without its residual label vectors; returns it."""
        if not vectors_on_host:
            return self.to(device)
        vectors, self.label_vectors = self.label_vectors, None
        self.to(device)
        self.label_vectors = vectors
        return self

    def with_all_vectors(self, vectors: Tensor | None) -> DualEncoder:
        """A model with the same towers and temperature, and these residual label vectors [L, D]."""
        whole = DualEncoder(self.query_encoder, self.label_encoder, normalize=self.normalize)
        whole.log_temperature = self.log_temperature
        whole.label_vectors = None if vectors is None else nn.Parameter(vectors, requires_grad=False)
        return whole

    @torch.no_grad()
    def embed_queries(self, texts: Sequence[str], batch_size: int = 1024) -> npt.NDArray[np.float32]:
        """Unit embeddings [n, D] float32 of query texts, for search."""
        return self._embed(texts, self.query_encoder, batch_size, first_row=None)

    @torch.no_grad()
    def embed_labels(
        self, texts: Sequence[str], with_vectors: bool = False, batch_size: int = 1024
    ) -> npt.NDArray[np.float32]:
        """Unit embeddings [n, D] float32 of label texts.

        with_vectors: `texts` are the labels of training, all of them in their order; their residual vectors are added.
        """
        return self._embed(texts, self.label_encoder, batch_size, first_row=0 if with_vectors else None)

    def _embed(
        self, texts: Sequence[str], encoder: Encoder, batch_size: int, first_row: int | None
    ) -> npt.NDArray[np.float32]:
        out = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), batch_size):
            chunk = texts[start : start + batch_size]
            embeddings = self._unit(encoder(encoder.featurize(chunk)))
            if first_row is not None and self.label_vectors is not None:
                own = self.label_vectors[first_row + start :][: len(chunk)].to(embeddings)
                embeddings = self._unit(embeddings + own)
            out[start : start + len(chunk)] = embeddings.float().cpu().numpy()
        return out

    def save(self, directory: Path) -> None:
        """Write the towers and model.safetensors into an existing directory."""
        for name, encoder in self._towers().items():
            (directory / name).mkdir()
            encoder.save(directory / name)
        tensors = {"log_temperature": self.log_temperature.detach(), "normalize": torch.tensor(self.normalize)}
        if self.label_vectors is not None:
            tensors["label_vectors"] = self.label_vectors.detach()
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, directory / "model.safetensors")

    @classmethod
    def load(cls, directory: Path) -> DualEncoder:
        """Read a model written by `save`; StoreError when the files do not fit together."""
        if (directory / "encoder").is_dir():
            query_encoder = label_encoder = _load_encoder(directory / "encoder")
        else:
            query_encoder = _load_encoder(directory / "query_encoder")
            label_encoder = _load_encoder(directory / "label_encoder")
        try:
            tensors = load_file(directory / "model.safetensors")
            vectors = tensors.get("label_vectors")
            count = 0 if vectors is None else len(vectors)
            model = cls(query_encoder, label_encoder, count, normalize=bool(tensors["normalize"]))
            model.log_temperature.data = tensors["log_temperature"]
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
            raise StoreError(f"{directory / 'model.safetensors'} cannot be read as a model: {error}") from error
        if vectors is not None and model.label_vectors is not None:
            if vectors.shape[1] != model.dimension:
                raise StoreError(f"{directory / 'model.safetensors'} does not fit its encoder's dimension.")
            model.label_vectors.data = vectors
        return model

    def _unit(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.normalize else vectors

    def _towers(self) -> dict[str, Encoder]:
        if self.query_encoder is self.label_encoder:
            return {"encoder": self.query_encoder}
        return {"query_encoder": self.query_encoder, "label_encoder": self.label_encoder}


def build_encoder(config: TrainConfig, labels: int, generator: torch.Generator) -> DualEncoder:
    """The untrained dual encoder that a configuration describes, for `labels` labels."""
    query_encoder: Encoder
    if config.encoder == "static":
        query_encoder = StaticEncoder(config.static, generator)
    else:
        options = config.transformer
        query_encoder = TransformerEncoder.from_pretrained(
            options.directory,
            options.pooling,
            options.max_length,
            options.projection,
            options.dtype,
            options.micro_batch_size,
        )
    label_encoder = query_encoder if config.share_towers else copy.deepcopy(query_encoder)
    vectors = labels if config.label_vectors == "residual" else 0
    return DualEncoder(
        query_encoder, label_encoder, vectors, config.temperature, config.learn_temperature, config.normalize
    )


def keep_vectors(labels: int, dropout: float, generator: torch.Generator) -> Tensor | None:
    """Which labels' residual vectors a step adds, bool [labels]: each is left out with the probability `dropout`."""
    return torch.rand(labels, generator=generator) >= dropout if dropout > 0 else None


def unit(vectors: Tensor) -> Tensor:
    """Rows scaled to L2 norm one; a zero row stays zero."""
    normalised: Tensor = _Unit.apply(vectors)  # type: ignore[no-untyped-call]
    return normalised


class _Unit(torch.autograd.Function):
    """L2 normalisation that keeps its output and the norms for the backward pass, and not its input."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        norms.masked_fill_(norms == 0, 1.0)
        normalised: Tensor = vectors / norms
        ctx.save_for_backward(normalised, norms)
        return normalised

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        normalised, norms = ctx.saved_tensors
        inner = torch.linalg.vecdot(gradients[0], normalised)[:, None]
        gradient: Tensor = torch.addcmul(gradients[0], normalised, inner, value=-1).div_(norms)
        return gradient


def _load_encoder(directory: Path) -> Encoder:
    try:
        kind = json.loads((directory / "encoder.json").read_text(encoding="utf-8"))["kind"]
        encoder = _ENCODERS[kind]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{directory / 'encoder.json'} does not name an encoder that this version knows.") from error
    return encoder.load(directory)
