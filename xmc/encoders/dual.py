"""The model: a query tower, a label tower (the same one by default), label vectors or prototypes, a temperature."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xmc.config import NoVectorsConfig, PrototypesConfig, ResidualConfig, TrainConfig
from xmc.data.images.ragged import RaggedImages
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side, device_of
from xmc.encoders.precision import Computed, Precision
from xmc.encoders.prototypes import LabelPrototypes
from xmc.encoders.registry import ENCODERS
from xmc.encoders.transfer import on_device
from xmc.errors import ConfigError, InputError, StoreError, boundary
from xmc.kernels.forks import refuse_device_of_parent
from xmc.progress import tracked
from xmc.storage.expected_tensors import Expected, torch_tensors
from xmc.storage.tensors import described_tensors

__all__ = ["DualEncoder", "build_encoder", "keep_vectors"]

Encode = Callable[[Encoder, RaggedTokens], Tensor]
LABEL_VECTORS = (NoVectorsConfig, ResidualConfig, PrototypesConfig)
"""The sections of label vectors that there is code for: here, and for prototypes in xmc.training too."""
PROTOTYPES = "prototypes."
"""Before the names of the tensors of label prototypes."""


class DualEncoder(nn.Module):
    """q = unit(e_Q(query)), z = unit(unit(e_L(label)) + r_label), scores q·z / τ.

    e_Q and e_L are encoders (one and the same where towers are shared), unit is L2 normalisation (nothing, where `normalize`
    is False) and r the optional residual label vectors [L, D], which start at zero; a label that was not trained on has none.
    With `prototypes`, z is unit(c) of the label's prototype c instead, see there. With `served`, q and z are cut to their
    first `served` numbers, and made unit again.
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
        """labels: number of residual label vectors to hold; 0 for none."""
        super().__init__()
        self.query_encoder, self.label_encoder, self.normalize = query_encoder, label_encoder, normalize
        self.label_vectors = nn.Parameter(torch.zeros(labels, query_encoder.dimension)) if labels else None
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log(), requires_grad=learn_temperature)
        self.prototypes: LabelPrototypes | None = None
        self.served: int | None = None

    def __repr__(self) -> str:
        """Dimension, towers, and what labels have beside their texts."""
        towers = ", ".join(f"{name} {encoder!r}" for name, encoder in self._towers().items())
        labels = "" if self.label_vectors is None else f", residual vectors of {len(self.label_vectors):,} labels"
        labels += "" if self.prototypes is None else ", prototypes"
        return f"<{type(self).__name__}: dimension {self.dimension}, {towers}{labels}>"

    @property
    def dimension(self) -> int:
        """Length D of an embedding."""
        return self.query_encoder.dimension if self.served is None else self.served

    @property
    def encoders(self) -> list[Encoder]:
        """The encoders of both towers; one where the towers are shared."""
        return list(self._towers().values())

    @property
    def temperature(self) -> Tensor:
        """τ, differentiable where it is learned."""
        return self.log_temperature.exp()

    def queries(self, features: RaggedTokens, encode: Encode = Encoder.__call__) -> Tensor:
        """Unit embeddings [n, D] of queries. encode: how an encoder is called, see xmc.training.gradient_cache."""
        return self._cut(self._unit(encode(self.query_encoder, features)))

    def label_texts(self, features: RaggedTokens, encode: Encode = Encoder.__call__) -> Tensor:
        """Unit embeddings [n, D] of label texts, without residual vectors. encode: as in `queries`."""
        return self._unit(encode(self.label_encoder, features))

    def labels(self, embeddings: Tensor, rows: Tensor, keep: Tensor | None = None) -> Tensor:
        """Unit embeddings [n, D] of the labels `rows` (int64 [n], unique) of training, given those of their texts.

        keep: bool [n], the labels whose residual vectors are added; None for all.
        """
        if self.prototypes is not None:
            return self._cut(self._unit(self.prototypes(embeddings, rows)))
        if self.label_vectors is None:
            return self._cut(embeddings)
        vectors = nn.functional.embedding(rows.to(self.label_vectors.device), self.label_vectors, sparse=True)
        vectors = vectors.to(embeddings.device)  # from the host, where they are left there
        if keep is not None:
            vectors = vectors * on_device(keep, vectors.device)[:, None]
        embeddings = embeddings + vectors
        del vectors  # [n, D], not to be held while the sum is normalised
        return self._cut(self._unit(embeddings))

    def new_labels(self, embeddings: Tensor) -> Tensor:
        """Unit embeddings [n, D] of labels that were not trained on, given those of their texts."""
        return self._cut(embeddings if self.prototypes is None else self._unit(self.prototypes.of_new(embeddings)))

    def prepare_for_training(self, config: TrainConfig) -> None:
        """Apply to the encoders what the configuration asks of training alone; see `Encoder.prepare_for_training`."""
        for encoder in self.encoders:
            encoder.prepare_for_training(config.encoder)

    def compute_in(self, precision: Precision, device: torch.device | None = None) -> Computed:
        """Have both towers compute in a precision, and say which; see `Encoder.compute_in`."""
        computed: list[Computed] = [encoder.compute_in(precision, device) for encoder in self.encoders]
        return computed[0]

    def place(self, device: torch.device, vectors_on_host: bool = False) -> DualEncoder:
        """Move the model to a device, perhaps without its residual label vectors; returns it."""
        if not vectors_on_host:
            return self.to(device)
        vectors, self.label_vectors = self.label_vectors, None
        self.to(device)
        self.label_vectors = vectors
        return self

    def with_all_vectors(self, vectors: Tensor | None) -> DualEncoder:
        """A model with the same towers, temperature and prototypes, and these residual label vectors [L, D]."""
        model = DualEncoder(self.query_encoder, self.label_encoder, normalize=self.normalize)
        model.log_temperature, model.prototypes, model.served = self.log_temperature, self.prototypes, self.served
        model.label_vectors = None if vectors is None else nn.Parameter(vectors, requires_grad=False)
        return model

    def merge(self) -> None:
        """Merge adapters into the towers, which then need no backbone outside; ConfigError where that cannot be done."""
        shared = self.label_encoder is self.query_encoder
        self.query_encoder = self.query_encoder.merged()
        self.label_encoder = self.query_encoder if shared else self.label_encoder.merged()

    def cut(self, dimension: int) -> DualEncoder:
        """The model with embeddings cut to their first numbers; InputError for more than there are."""
        if not 1 <= dimension <= self.dimension:
            raise InputError(f"Embeddings have {self.dimension} dimensions; they cannot be cut to {dimension}.")
        model = self.with_all_vectors(self.label_vectors)
        model.served = dimension
        return model

    @torch.no_grad()
    def embed_queries(
        self, texts: Sequence[str], images: RaggedImages | None = None, batch_size: int = 1024
    ) -> npt.NDArray[np.float32]:
        """Unit embeddings [n, D] float32 of query texts, with the images of each, for search.

        Raises InputError for images of another number than the texts, or that the encoder does not take.
        """
        out = np.empty((len(texts), self.dimension), np.float32)
        for start, features in _featurized(self.query_encoder, texts, "query", images, batch_size):
            out[start : start + len(features)] = self.queries(features).float().cpu().numpy()
        return out

    @torch.no_grad()
    def embed_labels(
        self,
        texts: Sequence[str],
        images: RaggedImages | None = None,
        with_vectors: bool = False,
        batch_size: int = 1024,
    ) -> npt.NDArray[np.float32]:
        """Unit embeddings [n, D] float32 of label texts, with the images of each; errors as of `embed_queries`.

        with_vectors: `texts` are the labels of training, all of them in their order; their residual vectors are added.
        """
        out = np.empty((len(texts), self.dimension), np.float32)
        for start, features in _featurized(self.label_encoder, texts, "label", images, batch_size):
            text_embeddings = self.label_texts(features)
            if with_vectors and self.label_vectors is not None:
                rows = torch.arange(start, start + len(features), device=text_embeddings.device)
                embeddings = self.labels(text_embeddings, rows)
            else:
                embeddings = self.new_labels(text_embeddings)
            out[start : start + len(features)] = embeddings.float().cpu().numpy()
        return out

    def save(self, directory: Path) -> None:
        """Write the towers and model.safetensors into an existing directory."""
        for name, encoder in self._towers().items():
            (directory / name).mkdir()
            encoder.save(directory / name)
        tensors = {"log_temperature": self.log_temperature.detach(), "normalize": torch.tensor(self.normalize)}
        if self.label_vectors is not None:
            tensors["label_vectors"] = self.label_vectors.detach()
        if self.served is not None:
            tensors["served"] = torch.tensor(self.served)
        if self.prototypes is not None:
            tensors["prototypes.heads"] = torch.tensor(self.prototypes.combiner.self_attn.num_heads)
            tensors |= {f"prototypes.{name}": tensor for name, tensor in self.prototypes.state_dict().items()}
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, directory / "model.safetensors")

    @classmethod
    def load(cls, directory: Path) -> DualEncoder:
        """Read a model written by `save`; StoreError when the files do not fit together."""
        if (directory / "encoder").is_dir():
            query_encoder = label_encoder = _load_encoder(directory / "encoder")
        else:
            query_encoder = _load_encoder(directory / "query_encoder")
            label_encoder = _load_encoder(directory / "label_encoder")
        file, dimension = directory / "model.safetensors", query_encoder.dimension
        if label_encoder.dimension != dimension:
            raise StoreError(
                f"{directory} has an encoder of labels of dimension {label_encoder.dimension}, and one of queries of "
                f"dimension {dimension}."
            )
        tensors = torch_tensors(file, _expected_tensors(file, dimension))
        vectors = tensors.get("label_vectors")
        model = cls(query_encoder, label_encoder, 0, normalize=bool(tensors["normalize"]))
        model.log_temperature.data = tensors["log_temperature"]
        model.served = int(tensors["served"]) if "served" in tensors else None
        if model.served is not None and not 1 <= model.served <= dimension:
            raise StoreError(f"{file} serves {model.served} of {dimension} numbers of an embedding.")
        model.prototypes = _load_prototypes(tensors, file)
        model.label_vectors = None if vectors is None else nn.Parameter(vectors)
        return model

    def _unit(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.normalize else vectors

    def _cut(self, vectors: Tensor) -> Tensor:
        return vectors if self.served is None else self._unit(vectors[:, : self.served])

    def _towers(self) -> dict[str, Encoder]:
        if self.query_encoder is self.label_encoder:
            return {"encoder": self.query_encoder}
        return {"query_encoder": self.query_encoder, "label_encoder": self.label_encoder}


def build_encoder(config: TrainConfig, labels: int, generator: torch.Generator) -> DualEncoder:
    """The untrained dual encoder that a configuration describes, for `labels` labels.

    Raises ConfigError for a kind of label vectors that there is no code for.
    """
    if not isinstance(config.label_vectors, LABEL_VECTORS):
        raise ConfigError(
            f"label_vectors.kind {config.label_vectors.kind!r} has a section of the configuration, but nothing that makes such "
            f"label vectors; choose none, residual or prototypes."
        )
    query_encoder = ENCODERS[config.encoder.kind].from_config(config.encoder, generator)
    label_encoder = query_encoder if config.share_towers else copy.deepcopy(query_encoder)
    vectors = labels if ResidualConfig.of(config.label_vectors) is not None else 0
    temperature, learned = config.objective.temperature, config.objective.learn_temperature
    return DualEncoder(query_encoder, label_encoder, vectors, temperature, learned, config.normalize)


def keep_vectors(labels: int, dropout: float, generator: torch.Generator) -> Tensor | None:
    """Whether a step adds each label's residual vector, bool [labels]: it is left out with the probability `dropout`.

    None where all are added.
    """
    return torch.rand(labels, generator=generator) >= dropout if dropout > 0 else None


def unit(vectors: Tensor) -> Tensor:
    """Rows [n, D] scaled to L2 norm one; a zero row stays zero."""
    normalised: Tensor = _Unit.apply(vectors)  # type: ignore[no-untyped-call]
    return normalised


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of an array [n, D] scaled to L2 norm one; a zero row stays zero."""
    return unit(torch.from_numpy(vectors)).numpy()


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


def _featurized(
    encoder: Encoder, texts: Sequence[str], side: Side, images: RaggedImages | None, batch_size: int
) -> Iterator[tuple[int, RaggedTokens]]:
    """The features of `batch_size` texts at a time, after the row of their first text."""
    if images is not None and len(images) != len(texts):
        raise InputError(f"There are images for {len(images)} texts, but {len(texts)} texts.")
    refuse_device_of_parent(str(device_of(encoder)))
    starts: Iterable[int] = range(0, len(texts), batch_size)
    if len(texts) > batch_size:
        starts = tracked(starts, f"encoding {side} texts", unit=f"batches of {batch_size:,}")
    for start in starts:
        features = encoder.featurize(texts[start : start + batch_size], side)
        if images is not None:
            features = replace(features, images=images.take(np.arange(start, start + len(features))))
        yield start, features


def _expected_tensors(file: Path, dimension: int) -> dict[str, Expected]:
    """What model.safetensors must hold beside encoders of a dimension; of prototypes what their sizes there demand."""
    expected = {
        "log_temperature": Expected(()),
        "normalize": Expected((), ("BOOL",)),
        "served": Expected((), ("I64",), optional=True),
        "label_vectors": Expected((None, dimension), optional=True),
    }
    described = described_tensors(file)
    if not any(name.startswith(PROTOTYPES) for name in described):
        return expected
    free, first = (described.get(PROTOTYPES + name) for name in ("free_vectors", "combiner.linear1.bias"))
    clusters, feedforward = (tensor.shape[0] if tensor and tensor.shape else 1 for tensor in (free, first))
    with torch.device("meta"):  # sizes without memory
        sizes = LabelPrototypes(dimension, clusters, 1, feedforward).state_dict()
    expected |= {PROTOTYPES + name: Expected(tuple(size.shape)) for name, size in sizes.items()}
    return expected | {f"{PROTOTYPES}heads": Expected((), ("I64",))}


def _load_prototypes(tensors: dict[str, Tensor], file: Path) -> LabelPrototypes | None:
    stored = {name.removeprefix(PROTOTYPES): value for name, value in tensors.items() if name.startswith(PROTOTYPES)}
    if not stored:
        return None
    clusters, dimension = stored["free_vectors"].shape
    heads, feedforward = int(stored.pop("heads")), len(stored["combiner.linear1.bias"])
    if heads < 1 or dimension % heads:
        raise StoreError(f"{file} has prototypes with {heads} heads, which do not divide {dimension} dimensions.")
    prototypes = LabelPrototypes(dimension, clusters, heads, feedforward)
    prototypes.load_state_dict(stored)
    return prototypes


def _load_encoder(directory: Path) -> Encoder:
    with boundary(StoreError, f"{directory / 'encoder.json'} does not name an encoder"):
        kind = str(json.loads((directory / "encoder.json").read_text(encoding="utf-8"))["kind"])
    try:
        encoder = ENCODERS[kind]
    except ConfigError as error:
        raise StoreError(
            f"{directory / 'encoder.json'} cannot be loaded: {error} An encoder from outside of xmc is known once the "
            f"module that registers it is imported."
        ) from error
    return encoder.load(directory)
