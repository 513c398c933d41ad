"""What is done to the rows of a job, as stages from rows of input to rows of output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from xmc.batch.options import Columns
from xmc.batch.rows import Rows
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.dual import DualEncoder
from xmc.errors import DataError, InputError

__all__ = ["Chunk", "Stage", "Work", "WorkSpecification", "encode", "spread", "tokenise"]

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """Rows on their way through the stages. value: of the good ones, what the last stage made."""

    rows: Rows
    value: Any


Stage = tuple[str, Callable[[Chunk], Chunk]]


class Work(ABC):
    """The stages, and the schema of what comes out of the last one, whose value is a record batch of all rows.

    device: where its model is. A null row is null in the result, in every column but uid.
    """

    schema: pa.Schema
    stages: tuple[Stage, ...]
    device: torch.device
    dimension: int


@dataclass(frozen=True)
class WorkSpecification(ABC):
    """What is to be done, in values that another process can be given, which then loads it. run: the run directory."""

    run: str
    columns: Columns

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON values that are the same where the work is; "run" is the fingerprint of the run."""

    @abstractmethod
    def load(self, shards: tuple[Any, ...] = ()) -> Work:
        """Make it ready. shards: the Ray actors that hold the labels, if the work itself does not.

        Raises StoreError for a run that cannot be read.
        """


def tokenise(encoder: Encoder, columns: Columns, side: Literal["query", "label"]) -> Callable[[Chunk], Chunk]:
    """The stage from texts, or lists of tokens, to tokens; embeddings are left as they are."""

    def stage(chunk: Chunk) -> Chunk:
        if columns.embedding is not None:
            return chunk
        if columns.tokens is not None:
            return Chunk(chunk.rows, _tokens(chunk.rows.payload, columns.tokens, encoder))
        return Chunk(chunk.rows, encoder.featurize(chunk.rows.payload.to_pylist(), side))

    return stage


def encode(model: DualEncoder, columns: Columns, side: Literal["query", "label"]) -> Callable[[Chunk], Chunk]:
    """The stage from tokens, or a column of embeddings, to embeddings float32 [n, D]."""

    @torch.no_grad()
    def stage(chunk: Chunk) -> Chunk:
        if columns.embedding is not None:
            own = chunk.rows.payload.flatten().to_numpy(zero_copy_only=False)
            return Chunk(chunk.rows, np.ascontiguousarray(own, np.float32).reshape(-1, model.dimension))
        if side == "query":
            embedded = model.queries(chunk.value)
        else:
            embedded = model.new_labels(model.label_texts(chunk.value))
        return Chunk(chunk.rows, embedded.float().cpu().numpy())

    return stage


def spread(rows: Rows, lengths: npt.NDArray[np.int64]) -> tuple[pa.Array, pa.Array]:
    """Offsets of lists of all rows, of which the good ones have these lengths, and which of the lists are null."""
    every = np.zeros(len(rows.good), np.int64)
    every[rows.good] = lengths
    offsets = np.concatenate([[0], np.cumsum(every)]).astype(np.int32)
    return pa.array(offsets), pa.array(~rows.good)


def _tokens(column: pa.Array, name: str, encoder: Encoder) -> RaggedTokens:
    values = pc.list_flatten(column)
    try:
        ids = values.cast(pa.uint32()).to_numpy(zero_copy_only=False)
        encoder.require_tokens(ids)
    except (pa.ArrowException, InputError) as error:
        raise DataError(
            f"The column {name!r} holds tokens that are not those of the run's encoder: {error} Tokenise with it."
        ) from error
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return RaggedTokens(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
