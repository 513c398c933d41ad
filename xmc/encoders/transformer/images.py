"""Image embeddings among the tokens of a text: as many places at the slot as the text has images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xmc.data.tokens import RaggedTokens
from xmc.encoders.transfer import on_device

__all__ = ["WithImages", "input_embeddings", "place_images"]


@dataclass(frozen=True)
class WithImages:
    """n sequences in which the slot stands once for each image that is used.

    values: token ids [total]. lengths: int64 [n]. images: float16 [m, I], in the order of their places.
    """

    values: npt.NDArray[np.unsignedinteger]
    lengths: npt.NDArray[np.int64]
    images: npt.NDArray[np.float16]


def place_images(features: RaggedTokens, slot: int, dimension: int, most: int) -> WithImages:
    """Repeat the slot of each sequence once for each of its images; a sequence without images loses it.

    dimension: length I of an image embedding. most: number of a text's images that are used at most, the first ones.
    """
    rows = np.repeat(np.arange(len(features)), features.lengths)
    is_slot = features.values == slot
    counts = np.zeros(len(features), np.int64)
    used = np.zeros((0, dimension), np.float16)
    if features.images is not None:
        counts = np.minimum(features.images.counts, most)
        counts *= np.bincount(rows[is_slot], minlength=len(features))
        first = np.repeat(features.images.offsets[:-1], features.images.counts)
        rank = np.arange(len(features.images.values)) - first
        used = features.images.values[rank < np.repeat(counts, features.images.counts)]
    repeats = np.where(is_slot, counts[rows], 1)
    lengths = np.bincount(rows, weights=repeats, minlength=len(features)).astype(np.int64)
    return WithImages(np.repeat(features.values, repeats), lengths, used)


def input_embeddings(
    table: nn.Module, projection: nn.Linear, ids: Tensor, is_image: Tensor, images: npt.NDArray[np.float16]
) -> Tensor:
    """Input embeddings [n, T, W]: of token ids [n, T] from the table, and of images [m, I] through the projection.

    is_image: bool [n, T] with m true entries.
    """
    embedded: Tensor = table(torch.where(is_image, 0, ids))
    if not len(images):
        return embedded
    vectors = on_device(images, embedded.device)
    projected = projection(vectors.to(projection.weight))
    return embedded.masked_scatter(is_image[:, :, None], projected.to(embedded))
