"""Embeddings of everything, without gradient, as search would have them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.data.tokens import RaggedTokens
from xmc.encoders.dual import DualEncoder
from xmc.progress import tracked
from xmc.training.distributed import World

__all__ = ["CHUNK", "embed_labels", "embed_queries", "encode_labels"]

CHUNK = 4096


@torch.no_grad()
def embed_queries(model: DualEncoder, features: RaggedTokens) -> npt.NDArray[np.float32]:
    """Unit embeddings float32 [n, D] of queries."""
    model.eval()
    out = np.empty((len(features), model.dimension), np.float32)
    chunks = (np.arange(start, min(start + CHUNK, len(features))) for start in range(0, len(features), CHUNK))
    for rows in tracked(chunks, "encoding queries", len(features), unit="queries", size=len):
        out[rows] = model.queries(features.take(rows)).float().cpu().numpy()
    return out


@torch.no_grad()
def encode_labels(model: DualEncoder, features: RaggedTokens, world: World) -> Tensor:
    """Unit embeddings [n, D] of the texts of this process's labels, without residual vectors, on the model's device."""
    model.eval()
    own = world.own(len(features))
    rows_of_chunks = world.chunks(len(features), CHUNK)
    chunks = [
        model.label_texts(features.take(rows))
        for rows in tracked(rows_of_chunks, "encoding labels", own.stop - own.start, unit="labels", size=len)
    ]
    return torch.cat(chunks) if chunks else model.log_temperature.new_zeros(0, model.dimension)


@torch.no_grad()
def embed_labels(model: DualEncoder, features: RaggedTokens, world: World) -> Tensor:
    """Unit embeddings float32 [n, D] on the CPU of this process's labels, with the model's residual vectors."""
    texts = encode_labels(model, features, world)
    return model.labels(texts, torch.arange(len(texts), device=texts.device)).float().cpu()
