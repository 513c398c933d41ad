"""What the steps read: the training part, its validation part if any, and the tokens of both sides."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.arrays import Rows
from xmc.config import TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.evidence import CandidateSets, LabelBags, Votes
from xmc.data.held_out import uses_of_queries
from xmc.data.images.ragged import RaggedImages
from xmc.data.splits import Split
from xmc.data.targets import Targets, pairs_of_rows
from xmc.data.token_cache import TokenCache, cached_tokens
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder, Side
from xmc.encoders.dual import DualEncoder
from xmc.errors import DataError
from xmc.evaluation.labelled import LabelledPart
from xmc.training.clock import Clock
from xmc.training.passages import passages_of_split
from xmc.training.supervision.known import KnownPairs
from xmc.training.supervision.teacher import taught_labels

__all__ = ["TrainingData", "prepare"]

logger = logging.getLogger("xmc.training")
SIDES: dict[Side, str] = {"query": "queries", "label": "labels"}
WORTH_KEEPING = 5_000
"""Number of texts from which on the user's cache keeps their tokens: MiniLM's tokenizer takes 20 microseconds a text on two
cores, and to find tokens in a cache takes as long as to tokenise some thousand texts, most of it a digest of the vocabulary."""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation queries, features of the former and of all labels, and what is known of the pairs.

    documents: the training queries as the data set has them. training: those that steps are made of, the same, or the passages
    of the documents; bags: then for each of them the row of its document, int64, else None.

    validation_filter: pairs (row of `validation`, label), int64 [m, 2], that count nowhere.

    votes, candidate_sets, label_bags: evidence about the documents, whose rows it names; None where there is none.
    """

    dataset: Dataset
    documents: Split
    training: Split
    bags: Rows | None
    validation: Split | None
    validation_filter: npt.NDArray[np.int64]
    query_features: RaggedTokens
    label_features: RaggedTokens
    known: KnownPairs
    votes: Votes | None = None
    candidate_sets: CandidateSets | None = None
    label_bags: LabelBags | None = None


def prepare(dataset: Dataset, config: TrainConfig, model: DualEncoder, clock: Clock | None = None) -> TrainingData:
    """Keep validation and calibration queries aside, and tokenise. clock: adds up the seconds of this by phase.

    Raises DataError where there is nothing to train on.
    """
    clock = clock or Clock()
    if "train" not in dataset.splits:
        raise DataError(
            f"The data set {dataset.name!r} has no split train, only {', '.join(dataset.splits) or 'none'}."
        )
    every = dataset.split("train")
    uses = uses_of_queries(len(every), config.validation.share, config.calibration, config.seed, every.labelled)
    training, targets = every, dataset.targets("train")
    if len(uses.training) < len(every):
        training, targets = every.take(uses.training), targets.take(uses.training)
    validation, validation_filter = _validation(dataset, uses.validation, config.validation.split)
    if not len(training) or not len(dataset.labels):
        raise DataError(f"The data set {dataset.name!r} has no training queries or no labels.")
    distillation = config.objective.distillation
    votes, sets, label_bags = _evidence(dataset, uses.training)
    elsewhere = config.supervision.estimator != "none" and any(some is not None for some in (votes, sets, label_bags))
    if not targets.truth.nnz and not distillation.teacher and not elsewhere:
        raise DataError(_nothing_to_learn(dataset, targets, len(uses.training) < len(every)))

    documents, bags = training, None
    if config.data.bags.is_on:
        with clock.of("passages"):
            training, bags = passages_of_split(documents, config.data.bags, model.query_encoder)
        targets = targets.take(bags)
    labels = dataset.labels
    _check_images(model.query_encoder.image_dimension, training, dataset)
    cache = _token_cache(config.token_cache, model.query_encoder, max(len(training), len(labels)))

    def features(encoder: Encoder, texts: pa.ChunkedArray, images: RaggedImages | None, side: Side) -> RaggedTokens:
        key = ""
        if cache is not None:
            with clock.of("token cache"):  # a digest of the vocabulary
                key = f"{encoder.features_key} {side}"
        tokens = cached_tokens(texts, partial(encoder.featurize, side=side), key, cache, SIDES[side], clock.of)
        return replace(tokens, images=encoder.images_of(images))

    query_features = features(model.query_encoder, training.texts, training.images, "query")
    label_features = features(model.label_encoder, labels.texts, labels.images, "label")
    with clock.of("targets"):
        taught = taught_labels(distillation, training, labels) if distillation.teacher else None
        known = KnownPairs(targets, config, taught)
    return TrainingData(
        dataset,
        documents,
        training,
        bags,
        validation,
        validation_filter,
        query_features,
        label_features,
        known,
        votes,
        sets,
        label_bags,
    )


def _validation(dataset: Dataset, held_out: Rows, name: str | None) -> tuple[Split | None, npt.NDArray[np.int64]]:
    """The queries to validate on, None for none, and the pairs of theirs that count nowhere. held_out: training queries.

    name: of a split in place of these. Raises DataError for a split that is not there, or none of whose queries is labelled.
    """
    if name is None:
        pairs = pairs_of_rows(dataset.filter("train"), held_out)
        return (dataset.split("train").take(held_out) if len(held_out) else None), pairs
    if name not in dataset.splits:
        raise DataError(
            f"validation.split is {name!r}, but the data set {dataset.name!r} has the splits {', '.join(dataset.splits)}; "
            f"name one of them, or set validation.share to hold out training queries."
        )
    part, pairs = LabelledPart.from_split(dataset.split(name), dataset.targets(name)), dataset.filter(name)
    return part.queries, pairs if part.rows is None else pairs_of_rows(pairs, part.rows)


def _evidence(dataset: Dataset, rows: Rows) -> tuple[Votes | None, CandidateSets | None, LabelBags | None]:
    """The evidence about some training queries; None where there is none of a kind, or none is left."""
    votes, sets, bags = dataset.votes(), dataset.candidate_sets(), dataset.label_bags()
    if bags is not None and (cut := bags.number_cut(rows)):
        logger.warning("%d bags are not used: some of their queries are held out for validation or calibration", cut)
    return (
        None if votes is None else votes.take(rows) or None,
        None if sets is None else sets.take(rows) or None,
        None if bags is None else bags.take(rows) or None,
    )


def _token_cache(setting: str | None, encoder: Encoder, texts: int) -> TokenCache | None:
    """The cache that the configuration asks for. texts: number of those of the longer side."""
    if setting != "auto":
        return TokenCache(Path(setting)) if setting else None
    return TokenCache.of_user() if encoder.has_tokenizer and texts >= WORTH_KEEPING else None


def _nothing_to_learn(dataset: Dataset, targets: Targets, held_out: bool) -> str:
    """Why no pair of a training query and a label is positive, and what to do."""
    if targets.positives.nnz:
        why = "the filter of train takes each of them out"
    elif targets.labelled is not None and not targets.labelled.any():
        why = "none of them is labelled"
    elif held_out:
        why = "those that are not held out for validation or calibration have none"
    elif targets.rejected.nnz:
        why = f"{targets.rejected.nnz:,} pairs are rejected or of relevance 0, and no others are given"
    else:
        why = "their lists of labels are empty"
    return (
        f"The {len(targets):,} training queries of the data set {dataset.name!r} have no positive label: {why}. There is "
        f"nothing to learn from; look at `xmc data inspect`, and convert again with the right column and separator of labels."
    )


def _check_images(dimension: int, training: Split, dataset: Dataset) -> None:
    """Raise DataError where the encoder takes images and there are none; say it where there are some and it takes none."""
    there = training.images is not None or dataset.labels.images is not None
    if dimension and not there:
        raise DataError(
            f"encoder.images.dimension is {dimension}, but the data set {dataset.name!r} has no images; add some with "
            f"`xmc data embed-images`, or set it to 0."
        )
    if there and not dimension:
        logger.info("the data set's images are not used: encoder.images.dimension is 0")
