"""A cross-encoder: a transformer that reads query and label together and says how well they fit."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from xmc.arrays import Ids
from xmc.encoders.base import device_of
from xmc.encoders.dual import DualEncoder
from xmc.encoders.transformer.backbones import quietly, read_tokenizer
from xmc.encoders.transformer.soundness import require_sound_backbone
from xmc.errors import ConfigError, InputError, StoreError, boundary
from xmc.search.queries import Query, query_list
from xmc.search.rerank.features import Feature, FeatureContext, FeatureValues
from xmc.search.stages import SearchState

__all__ = ["CrossEncoderFeature"]

PAIRS_AT_ONCE = 64
"""Pairs that are read together; they are as long as the longest of them."""
MOST_TOKENS = 512


class CrossEncoderFeature(Feature):
    """The logit of a sequence classifier for the pair (text of the query, text of the label).

    Of two classes it is that of the second less that of the first. It reads every pair of every shortlist: by far the dearest
    feature.
    """

    name = "cross_encoder"
    columns = ("logit",)

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """model, tokenizer: of the package transformers. ConfigError for a model of more than two classes."""
        if model.config.num_labels > 2:
            raise ConfigError(
                f"A cross-encoder must have one class, or two of which the second means that a label fits, but this one has "
                f"{model.config.num_labels}."
            )
        self.model, self.tokenizer = model.eval(), tokenizer

    @classmethod
    def from_context(cls, context: FeatureContext) -> CrossEncoderFeature:
        """See Feature. ConfigError for a directory that cannot be used."""
        if context.cross_encoder is None:
            raise InputError(
                "The feature 'cross_encoder' needs a cross-encoder; name the directory of one with cross_encoder=."
            )
        return cls.from_directory(context.cross_encoder)

    @classmethod
    def from_directory(cls, directory: Path) -> CrossEncoderFeature:
        """A sequence classifier of the package transformers: safetensors, and never code. ConfigError where it is none."""
        from transformers import AutoModelForSequenceClassification

        with boundary(ConfigError, f"{str(directory)!r} cannot be read as a cross-encoder"):
            if Path(directory).is_dir():
                require_sound_backbone(Path(directory))
            with quietly():
                model, loading = AutoModelForSequenceClassification.from_pretrained(
                    directory,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            if loading["missing_keys"]:
                raise ValueError(f"its weights lack {min(loading['missing_keys'])}")
            tokenizer = read_tokenizer(directory)
        return cls(model, tokenizer)

    @classmethod
    def load(cls, directory: Path, beside: DualEncoder) -> CrossEncoderFeature:
        """See Feature."""
        try:
            feature = cls.from_directory(directory)
        except ConfigError as error:
            raise StoreError(str(error)) from error
        feature.model.to(device_of(beside.query_encoder))
        return feature

    def save(self, directory: Path) -> None:
        """See Feature."""
        with quietly():
            self.model.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)

    @property
    def digest(self) -> str:
        """Of the weights."""
        digest = sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(
                name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        return digest.hexdigest()

    def values(self, state: SearchState, ids: Ids) -> FeatureValues:
        """See Feature. InputError for queries that are no plain texts."""
        texts = _texts(state.queries)
        rows, columns = np.nonzero(ids >= 0)
        labels = state.labels.texts_of(state.labels.rows_of_ids(ids[rows, columns]))
        values = np.full((*ids.shape, 1), np.nan, np.float32)
        values[rows, columns, 0] = self._logits([texts[row] for row in rows], labels)
        return values

    @torch.no_grad()
    def _logits(self, queries: list[str], labels: list[str]) -> npt.NDArray[np.float32]:
        """Of pairs [p], read in the order of their lengths."""
        logits = np.empty(len(queries), np.float32)
        order = np.argsort(
            [len(query) + len(label) for query, label in zip(queries, labels, strict=True)], kind="stable"
        )
        for start in range(0, len(order), PAIRS_AT_ONCE):
            places = order[start : start + PAIRS_AT_ONCE]
            pairs = [queries[place] for place in places], [labels[place] for place in places]
            tokens = self.tokenizer(
                *pairs, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            )
            out = self.model(**tokens.to(self.model.device)).logits.float().cpu().numpy()
            logits[places] = out[:, -1] - (out[:, 0] if out.shape[1] == 2 else 0)
        return logits

    @property
    def _longest(self) -> int:
        positions = getattr(self.model.config, "max_position_embeddings", MOST_TOKENS)
        return int(min(self.tokenizer.model_max_length, positions, MOST_TOKENS))


def _texts(queries: Any) -> list[str]:
    is_array = isinstance(queries, np.ndarray) and queries.dtype.kind not in "OUST"
    listed = [] if is_array or hasattr(queries, "offsets") else query_list(queries, allow_empty=True)
    if is_array or hasattr(queries, "offsets") or any(isinstance(query, Query) for query in listed):
        raise InputError(
            "The run's re-ranker has a cross-encoder, which reads the texts of queries; give texts alone, or rerank=False."
        )
    return [str(query) for query in listed]
