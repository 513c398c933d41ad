"""Directories of sentence-transformers: a model taken from one for labels, and a run's encoder written as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xmc.config import TrainConfig
from xmc.encoders.base import Side
from xmc.encoders.dual import DualEncoder
from xmc.encoders.precision import Precision
from xmc.encoders.sentence_transformers.conversion import from_sentence_transformers, to_sentence_transformers
from xmc.errors import StoreError
from xmc.search.labels import LabelVersion
from xmc.storage.directories import atomic_directory
from xmc.storage.manifests import MANIFEST, read_manifest, require_free

__all__ = ["export_encoder", "read_encoder"]

EXPORTED = "sentence-transformers model"
"""What a manifest calls an exported encoder."""
CHECKED_TEXTS = 1000
"""Number of label texts that show whether sentence-transformers cuts texts into the same tokens."""


def read_encoder(
    directory: str | Path, label_texts: Sequence[str], index: str, precision: Precision, **options: Any
) -> tuple[DualEncoder, TrainConfig]:
    """The model of a directory, and the configuration that trains it further; see `Retriever.from_sentence_transformers`.

    label_texts: of all labels; the first ones show in the log whether sentence-transformers cuts them into the same tokens.
    options: query_prompt, label_prompt and max_length. Raises ConfigError for a directory that cannot be used, StoreError for
    one that xmc wrote and that is not as it was written.
    """
    if (Path(directory) / MANIFEST).is_file():
        try:
            read_manifest(directory, EXPORTED)
        except StoreError as error:
            raise StoreError(
                f"{error} Or, where the model was changed on purpose, remove {MANIFEST} from the directory."
            ) from error
    return from_sentence_transformers(directory, label_texts[:CHECKED_TEXTS], index, precision, **options)


def export_encoder(
    model: DualEncoder, labels: LabelVersion, directory: str | Path, tower: Side | None, overwrite: bool
) -> None:
    """Write an encoder as a directory, whole or not at all; see `Retriever.export_sentence_transformers`.

    labels: those of the model; both must cut the first ones into the same tokens.
    Raises ConfigError for what sentence-transformers cannot hold, InputError for a tower that must be named, StoreError where
    the directory holds something else, or a model and `overwrite` is not set.
    """
    directory = Path(directory)
    require_free(directory, EXPORTED, overwrite)
    texts = [text or "" for text in labels.texts[:CHECKED_TEXTS].to_pylist()]
    with atomic_directory(directory, EXPORTED) as temporary:
        to_sentence_transformers(model, temporary, tower, texts)
