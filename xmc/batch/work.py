"""What is done to the rows of a job, as steps from rows of input to rows of output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from xmc.arrays import Embeddings
from xmc.batch.options import Columns
from xmc.batch.rows import Rows
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side
from xmc.errors import DataError, InputError, StoreError
from xmc.search.run_directory import RunDirectory
from xmc.storage.directories import read_unreplaced

__all__ = [
    "Chunk",
    "Step",
    "Work",
    "WorkSpecification",
    "embeddings_of",
    "features_of",
    "load_work",
    "of_run",
    "tokens_in",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Chunk:
    """Rows on their way through the steps. value: of the good rows, what the last step made.

    tokens: number of those that the encoder is given, once known; 0 where nobody counts them, as of hashed features.
    """

    rows: Rows
    value: Any
    tokens: int = 0


Step = tuple[str, Callable[[Chunk], Chunk]]
"""A name and what it does."""


class Work(ABC):
    """The steps, and the schema of what the last one makes: a record batch of all rows.

    device: where the model is. dimension: of its embeddings. A null row is null in the result, in every column but uid.
    """

    schema: pa.Schema
    steps: tuple[Step, ...]
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

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the columns of the result, without those of the input that are kept."""

    @abstractmethod
    def load(self, shards: tuple[Any, ...] = ()) -> Work:
        """Make it ready. shards: the Ray actors that hold the labels, if the work itself does not.

        Raises StoreError for a run that cannot be read.
        """


def load_work(work: WorkSpecification, fingerprint: str, shards: tuple[Any, ...] = ()) -> Work:
    """The work of the run with this fingerprint, made ready; errors as of `WorkSpecification.load`, and of `of_run`."""
    return of_run(work.run, fingerprint, lambda: work.load(shards))


def of_run(run: str, fingerprint: str, read: Callable[[], T]) -> T:
    """What `read` reads of a run directory; StoreError where that holds another run than the one of this fingerprint."""

    def verified() -> T:
        content = read()
        if RunDirectory(run).fingerprint != fingerprint:
            raise StoreError(
                f"{run} was written anew since the job began, whose answers are all of one run. Put the run before back and "
                f"resume the job, or begin another job, in another folder."
            )
        return content

    return read_unreplaced(run, verified)


def features_of(rows: Rows, columns: Columns, encoder: Encoder, side: Side) -> RaggedTokens:
    """What an encoder makes of rows of texts, or reads from a column of tokens. DataError for tokens that are not its own."""
    if columns.tokens is not None:
        return _tokens(rows.payload, columns.tokens, encoder)
    return encoder.featurize(rows.payload.to_pylist(), side)


def tokens_in(features: RaggedTokens, encoder: Encoder) -> int:
    """Number of tokens that a job counts of an encoder's features."""
    return len(features.values) if encoder.has_tokenizer else 0


def embeddings_of(rows: Rows, dimension: int) -> Embeddings:
    """The column of embeddings, float32 [n, dimension]."""
    values = rows.payload.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, np.float32).reshape(-1, dimension)


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
