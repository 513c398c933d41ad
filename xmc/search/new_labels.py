"""Labels from outside of training: their vectors, by text or by example, scaled so that they stand beside trained ones.

score="rate" scales all labels that are given together by one factor (and those with examples by another one, for their
vectors are of another kind), by xmc.search.entry_rate; score="raw" leaves vectors as they are. Where nobody says how often
labels are expected, there is a limit, for labels of a subject that the stored queries do not have: texts are never scaled up,
and examples are not to score higher, in the mean, than the best labels of the stored queries do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xmc.arrays import Embeddings, Mask, Rows
from xmc.errors import InputError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.checks import require_matrix
from xmc.indexes.designs import design_of
from xmc.indexes.versions import IndexVersion
from xmc.search.entry_rate import EntryRate, Scaling
from xmc.search.label_columns import ORIGIN
from xmc.search.label_vectors import ExampleSums, second_moment, vectors_from_examples
from xmc.search.labels import LabelVersion

__all__ = ["NewVectors", "Score", "Scoring", "StoredQueries", "origin_of", "scaled_beside_trained"]

Score = Literal["rate", "raw"]
"""How labels from outside of training are scaled; see the module."""
WITH_EXAMPLES = 2.0
"""Labels that come with examples do occur, and enter the best ten of this multiple of the queries that the mean trained label
does. From five examples, on held-out queries of wordnet-8k and two draws of hidden labels, P@5 of all labels is 1.1 and 0.9
higher than with 1, P@1 changes by -0.2 and +0.1, recall@10 of trained labels by -0.3; with 4, P@1 falls by 1.7."""
RAW = (
    "The run keeps no queries to scale new labels by, so that their scores are raw and may displace those of other labels; "
    "train it anew, or give Retriever.from_model its tuning_queries."
)
logger = logging.getLogger("xmc.search")


@dataclass(frozen=True)
class Scoring:
    """How new labels are scaled.

    score: see the module. expected_rate: the share of queries whose best ten a label is expected to enter, in the mean of the
    labels; None for that of trained labels, or WITH_EXAMPLES as often for labels with examples.

    Raises InputError for another word, and for a rate that is not in (0, 1], or without score="rate".
    """

    score: Score = "rate"
    expected_rate: float | None = None

    def __post_init__(self) -> None:
        if self.score not in ("rate", "raw"):
            raise InputError(f'score must be "rate" or "raw", but is {self.score!r}.')
        rate: Any = self.expected_rate
        if rate is None:
            return
        number = isinstance(rate, (int, float, np.number)) and not isinstance(rate, bool) and math.isfinite(rate)
        if not number or not 0 < rate <= 1:
            raise InputError(
                f"expected_rate is the share of queries that a label is expected to be among the best ten of, above 0 and at "
                f"most 1, but is {rate!r}."
            )
        if self.score == "raw":
            raise InputError(
                'expected_rate is what score="rate" aims at; leave one of expected_rate and score="raw" out.'
            )


@dataclass(frozen=True)
class NewVectors:
    """What m labels are searched by.

    embeddings: float32 [m, D], scaled. origin: the columns of label_columns.ORIGIN. scalings: one for the labels by their texts
    alone, and one for those with examples, where there are such.
    """

    embeddings: Embeddings
    origin: pa.Table
    scalings: tuple[Scaling, ...]


class StoredQueries:
    """The query embeddings that a run keeps, float32 [n, D], with what is known by them of queries to come.

    What is found once is kept: the second moment, and the thresholds until trained labels are removed or updated.
    """

    def __init__(self, queries: Embeddings) -> None:
        self.queries = queries
        self._moment: npt.NDArray[np.float64] | None = None
        self._rate: EntryRate | None = None
        self._warned = False

    def vectors(
        self,
        labels: LabelVersion,
        uids: Sequence[str],
        texts: Embeddings,
        with_text: Mask,
        examples: ExampleSums,
        negatives: ExampleSums | None,
        scoring: Scoring,
    ) -> NewVectors:
        """Vectors of m labels that join others.

        texts: embeddings float32 [m, D] of the texts of those `with_text`, bool [m]. Raises InputError for examples without
        stored queries, and for examples that cancel out.
        """
        judged = examples.counts > 0 if negatives is None else (examples.counts > 0) | (negatives.counts > 0)
        embeddings = np.array(texts, np.float32)
        if judged.any():
            self._require("labels by example need them to tell what is common to all queries")
            chosen = _taken(examples, judged), texts[judged], with_text[judged]
            against = None if negatives is None else _taken(negatives, judged)
            embeddings[judged] = vectors_from_examples(self._second_moment(), *chosen, against)
            lost = np.flatnonzero(judged)[~embeddings[judged].any(axis=1)]
            if len(lost):
                raise InputError(
                    f"The examples and the text of the label {uids[lost[0]]!r} add up to nothing; give others."
                )
        scales, scalings = np.ones(len(texts), np.float32), []
        for rows, by_example in ((np.flatnonzero(~judged), False), (np.flatnonzero(judged), True)):
            if len(rows):
                own = _taken(examples, rows) if by_example else None
                scalings.append(self._scaling(labels, embeddings[rows], own, scoring))
                scales[rows] = scalings[-1].scale
        return NewVectors(embeddings * scales[:, None], origin_of(scales, examples.counts), tuple(scalings))

    def _scaling(
        self, labels: LabelVersion, vectors: Embeddings, examples: ExampleSums | None, scoring: Scoring
    ) -> Scaling:
        """The scale of labels with examples, or of labels by their texts alone, whose examples are None."""
        if scoring.expected_rate is not None:
            self._require("expected_rate is about them")
        if scoring.score == "raw" or not len(self.queries):
            if scoring.score == "rate":
                self._warn()
            return Scaling(len(vectors), 1.0, math.nan)
        rate = self._entry_rate(labels)
        if scoring.expected_rate is not None:
            return rate.scaling(vectors, scoring.expected_rate)
        if examples is None:
            return rate.scaling(vectors, rate.usual, most=1.0)
        own = (
            float((vectors * examples.means).sum(axis=1)[examples.counts > 0].mean()) if examples.counts.any() else 0.0
        )
        most = rate.best / own if own > 0 else 1.0
        return rate.scaling(vectors, min(1.0, WITH_EXAMPLES * rate.usual), most)

    def _entry_rate(self, labels: LabelVersion) -> EntryRate:
        """Thresholds among the trained labels; where all were replaced, among all labels."""
        trained = labels.trained
        alive = None if trained is None else trained if labels.alive is None else trained & labels.alive
        count = len(labels) if alive is None else int(alive.sum())
        if not count:
            alive, count = None, len(labels)
        if self._rate is None or self._rate.trained != count:
            self._rate = EntryRate.from_index(labels.index, self.queries, alive)
        return self._rate

    def _second_moment(self) -> npt.NDArray[np.float64]:
        if self._moment is None:
            self._moment = second_moment(self.queries)
        return self._moment

    def _warn(self) -> None:
        """Log once that new labels are not scaled."""
        if not self._warned:
            logger.warning(RAW)
        self._warned = True

    def _require(self, why: str) -> None:
        if not len(self.queries):
            raise InputError(
                f"The run keeps no queries, and {why}; train it anew, or give Retriever.from_model its tuning_queries."
            )


def origin_of(scales: Embeddings, examples: npt.NDArray[np.integer], trained: Mask | None = None) -> pa.Table:
    """The columns of label_columns.ORIGIN, null for labels of training."""
    columns = [pa.array(scales, ORIGIN.types[0], mask=trained), pa.array(examples, ORIGIN.types[1], mask=trained)]
    return pa.table(columns, schema=ORIGIN)


def scaled_beside_trained(
    embeddings: Embeddings, trained: Mask, queries: Embeddings
) -> tuple[Embeddings, pa.Table | None]:
    """Label embeddings [L, D], those without training scaled down as new labels are, and their origin.

    Labels that are no more frequent among the best than trained ones are left as they are, and the origin is None: training
    saw them as negatives. On held-out queries of wordnet-8k such labels of a run with in-batch negatives enter the best ten 1.5
    times as often as trained ones, and scaled down, P@1 rises by 1.0 and 1.2 and P@5 by 1.3 and 1.4 (two seeds); with the
    negatives "all", "sampled" and "shortlist" they enter less often, and scaled up, P@1 would fall by 3 to 11.

    trained: bool [L]. queries: stored ones, float32 [n, D]. Raises InputError for a mask that does not fit.
    """
    trained = np.asarray(trained)
    if trained.shape != (len(embeddings),) or trained.dtype != bool:
        raise InputError(
            f"trained must say True or False of each of {len(embeddings)} labels, but is {trained.dtype} {list(trained.shape)}."
        )
    if trained.all():
        return embeddings, None
    blocks = EmbeddingBlocks([require_matrix(embeddings, embeddings.shape[1], "label embeddings")])
    held = IndexVersion.from_embeddings(design_of("exact", blocks.dimension), blocks)
    rate = EntryRate.from_index(held, queries, trained)
    scale = rate.scaling(embeddings[~trained], rate.usual).scale
    if not len(queries):
        logger.warning(RAW)
    if scale >= 1:
        return embeddings, None
    scales = np.where(trained, np.float32(1), np.float32(scale))
    return embeddings * scales[:, None], origin_of(scales, np.zeros(len(scales), np.int32), trained)


def _taken(examples: ExampleSums, chosen: Mask | Rows) -> ExampleSums:
    return ExampleSums(examples.sums[chosen], examples.counts[chosen])
