"""The passages of training texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from xmc.arrays import Rows
from xmc.config import BagsConfig
from xmc.data.splits import Split
from xmc.encoders.base import Encoder
from xmc.errors import DataError
from xmc.search.passages import PassageOptions, cut

__all__ = ["passages_of_split"]


def passages_of_split(split: Split, config: BagsConfig, encoder: Encoder) -> tuple[Split, Rows]:
    """The passages of a split's texts as queries with all labels of their text, and the row of each one's text, int64 [P].

    A text without a passage that is more than blanks is one itself. Raises DataError for a split with images.
    """
    if split.images is not None:
        raise DataError("The training queries have images, which belong to no passage; leave data.bags out.")
    texts: list[str] = []
    counts = []
    for text in split.texts.to_pylist():
        passages = _passages(text or "", config, encoder)
        texts += passages
        counts.append(len(passages))
    rows = np.repeat(np.arange(len(split)), counts)
    taken = split.take(rows)
    return Split(taken.uids, pa.chunked_array([pa.array(texts, pa.string())]), taken.positives, taken.rejected), rows


def _passages(text: str, config: BagsConfig, encoder: Encoder) -> list[str]:
    if config.separator:
        return [passage for passage in text.split(config.separator) if passage.strip()] or [text]
    return cut(text, PassageOptions(config.tokens or 1, config.stride), encoder)
