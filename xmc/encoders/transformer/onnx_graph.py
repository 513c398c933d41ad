"""A transformer encoder as one ONNX graph: padded tokens in, embeddings out, with pooling, projections and normalisation."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.encoders.transformer.padding import attention_mask_of
from xmc.encoders.transformer.settings import TransformerParts
from xmc.errors import ConfigError, require_package

__all__ = ["INPUTS", "OUTPUT", "EmbeddingGraph", "plain_encoder", "quantise", "write_graph"]

INPUTS, OUTPUT = ("input_ids", "attention_mask"), "embeddings"
"""Names of a graph's inputs, int64 [n, T], texts padded at the end, and of its output, float32 [n, D]."""
LARGEST_FILE = 1_800_000_000
"""Bytes of weights above which they stand in a file of their own beside the graph: a file of this format ends at 2 GB."""
PACKAGES = "onnx onnxscript onnxruntime"


class EmbeddingGraph(nn.Module):
    """What an encoder computes, without its tokenizer, for padded texts; unit vectors if `normalize`.

    served: number of the first numbers of an embedding that are kept, and made unit again; None for all.
    """

    def __init__(self, encoder: TransformerEncoder, normalize: bool, served: int | None) -> None:
        """encoder: as of `plain_encoder`."""
        super().__init__()
        self.backbone, self.dense, self.projection = encoder.backbone, encoder.dense, encoder.projection
        self.pooling, self.bidirectional = encoder.settings.pooling, encoder.settings.attention == "bidirectional"
        self.normalize, self.served = normalize, served

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings [n, D] of token ids [n, T], where the mask is 1 for a text's tokens and 0 behind them."""
        seen = attention_mask_of(attention_mask.bool(), self.bidirectional, torch.float32)
        states = self.backbone(input_ids=input_ids, attention_mask=seen).last_hidden_state.float()
        embeddings = self._pooled(states, attention_mask)
        for layer in self.dense:
            embeddings = layer(embeddings)
        if self.projection is not None:
            embeddings = self.projection(embeddings)
        embeddings = self._unit(embeddings)
        return embeddings if self.served is None else self._unit(embeddings[:, : self.served])

    def _pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """As xmc.encoders.transformer.pooling.pool, of states [n, T, W]."""
        counts = mask.sum(1, keepdim=True)
        if self.pooling == "mean":
            return (states * mask[:, :, None]).sum(1) / counts.clamp_min(1)
        filled = (counts > 0).to(states)
        if self.pooling == "cls":
            return states[:, 0] * filled
        last = (counts - 1).clamp_min(0)[:, :, None].expand(-1, 1, states.shape[2])
        return states.gather(1, last)[:, 0] * filled

    def _unit(self, vectors: Tensor) -> Tensor:
        if not self.normalize:
            return vectors
        norms = vectors.square().sum(1, keepdim=True).sqrt()
        return vectors / torch.where(norms == 0, torch.ones_like(norms), norms)


def plain_encoder(encoder: TransformerEncoder) -> TransformerEncoder:
    """A copy that computes in float32 on the processor, its adapters merged, its attention torch's own for padded texts.

    ConfigError for an encoder of images, and where adapters cannot be merged.
    """
    if encoder.image_dimension:
        raise ConfigError("This run embeds images beside a text, which is not written as ONNX; serve it with xmc.")
    merged = encoder.merged()
    backbone: Any = copy.deepcopy(merged.backbone).float().cpu()
    backbone.set_attn_implementation("sdpa" if getattr(backbone, "_supports_sdpa", False) else "eager")
    settings = replace(merged.settings, dtype="float32", base="", base_digest="")
    layers = [copy.deepcopy(layer).float().cpu() for layer in merged.dense]
    plain = TransformerEncoder(TransformerParts(backbone, merged.tokenizer, settings, layers))  # type: ignore[arg-type]
    if merged.projection is not None and plain.projection is not None:
        plain.projection.load_state_dict(merged.projection.state_dict())
    backbone.set_attn_implementation("sdpa" if getattr(backbone, "_supports_sdpa", False) else "eager")
    plain.packed = False
    return plain.eval()


def write_graph(graph: EmbeddingGraph, file: Path, padding: int) -> None:
    """Write a graph for any number of texts of any length. padding: a token id, for the example that is traced.

    DependencyError where a package is missing, ConfigError for a backbone that torch cannot export.
    """
    for package in PACKAGES.split():
        require_package(package, "A run is written as ONNX", PACKAGES)
    ids = torch.full((2, 7), padding)
    ids[:, :5] = torch.arange(1, 6)
    mask = (torch.arange(7) < torch.tensor([[7], [5]])).long()
    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens")
    weights = sum(parameter.numel() * parameter.element_size() for parameter in graph.parameters())
    try:
        with _quietly(), torch.no_grad():
            torch.onnx.export(
                graph.eval(),
                (ids, mask),
                str(file),
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes={name: {0: texts, 1: tokens} for name in INPUTS},
                dynamo=True,
                external_data=weights > LARGEST_FILE,
                verbose=False,
            )
    except Exception as error:  # torch raises whatever stopped it, of many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"A {type(graph.backbone).__name__} cannot be written as ONNX by torch: {reason}") from error


def quantise(source: Path, file: Path) -> None:
    """Write a graph with weights of 8 bits, whose activations are rounded as they come (dynamic quantisation)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = source.with_name(f"{source.name}.data").exists()
    with _quietly():
        quantize_dynamic(
            str(source), str(file), weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=large
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch and onnxruntime print and log of steps that went well."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
