"""Soft labels in place of given ones: what an estimate by a finished run says of a data set's training pairs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pyarrow import compute as pc
from scipy.sparse import csr_matrix

from xmc.arrays import Mask, Rows
from xmc.config import SupervisionConfig, TrainConfig
from xmc.data.dataset import Dataset
from xmc.data.evidence import CandidateSets, LabelBags, Votes
from xmc.data.held_out import uses_of_queries
from xmc.data.tokens import RaggedTokens
from xmc.errors import ConfigError, DataError
from xmc.progress import progress
from xmc.search.retriever import Retriever
from xmc.training.distributed import World
from xmc.training.supervision.decisions import Beliefs, decided
from xmc.training.supervision.draws import held_out_pairs, labels_of_chance, pairs_to_judge
from xmc.training.supervision.estimate import Estimated, Estimator
from xmc.training.supervision.evidence import PairEvidence
from xmc.training.supervision.pair_entries import PairEntries
from xmc.training.supervision.recorded import RecordedShare
from xmc.training.supervision.scores import PairScores, score_labels

__all__ = ["Relabelled", "relabel"]

logger = logging.getLogger("xmc.training")
LEAST_UNSEEN = 20
"""Pairs that the run has not seen; with fewer, nothing can be told from them."""


@dataclass(frozen=True)
class Relabelled:
    """An estimate, and what follows from it.

    entries: what training by the estimator would take up. seen: a sentence about which pairs count as unseen by the run.
    """

    dataset: Dataset
    entries: PairEntries
    estimator: Estimator
    beliefs: Beliefs
    estimated: Estimated
    seen: str


@progress("relabelling")
def relabel(retriever: Retriever, dataset: Dataset, config: TrainConfig | None = None) -> Relabelled:
    """The data set with soft labels: the posterior of xmc.training.supervision by the scores of a finished run.

    config: the run's own by default; its `supervision` says what is estimated, and `objective.relevance_weights` whether given
        relevances count.

    In the split train, pairs that pull are the labels, with their pull as relevance; pairs that count nowhere, or are doubtful
    (no positives, and less than whole negatives), are the filter; rejected pairs stay. Queries that were not labelled are,
    where they have labels now. Evidence beside labels is gone, for it is in them. Other splits stay. Training on that with
    `objective.relevance_weights` takes up the entries that training with the estimator would at this estimate, except that
    doubtful pairs count nowhere.

    What unseen pairs score is told by the pairs of queries that the run kept aside for validation or calibration. Where it was
    trained on another data set all pairs are unseen; where it kept none aside, a share `supervision.held_out` of the pairs is
    taken as if it was, and wrong pairs that it learned by heart are not found.

    Raises ConfigError where nothing is to be estimated, or a share cannot be; DataError for labels that the run lacks, and
    where less than 20 pairs are unseen.
    """
    config = retriever.config if config is None else config
    options, targets = config.supervision, dataset.targets("train")
    given = PairEntries.of(targets, config.objective.relevance_weights, options.rejected_weight)
    evidence = PairEvidence.of(given, dataset.votes(), dataset.candidate_sets(), dataset.label_bags())
    trusted = dataset.split(config.validation.split) if config.validation.split else None
    recorded = RecordedShare.of(targets, config, trusted)
    estimator, seen = _estimator(retriever, dataset, config, evidence, recorded)
    logger.info("relabelling: %s", seen)
    chance = labels_of_chance(estimator.counts, len(targets), config.seed, 0)
    beliefs, estimated = estimator.first(_scores(retriever, dataset, estimator, chance), chance)
    nowhere = np.zeros(len(evidence), bool)
    entries = decided(evidence, beliefs, estimator.options, nowhere, estimator.most_new(estimated))
    written = _written(dataset, entries)
    written.properties["relabelled"] = _told(retriever, dataset, options)
    return Relabelled(written, entries, estimator, beliefs, estimated, seen)


def _estimator(
    retriever: Retriever, dataset: Dataset, config: TrainConfig, evidence: PairEvidence, recorded: RecordedShare
) -> tuple[Estimator, str]:
    """The estimator of what there is to estimate, and which pairs count as unseen, in words."""
    options = config.supervision
    wanted = pairs_to_judge(evidence, options, recorded)
    if not wanted.any() and not len(evidence.groups):
        raise ConfigError(
            f"Nothing is to be estimated: by the configuration all labels of {dataset.name!r} are right and complete, and "
            f"there is no evidence beside them. Say what is not so, such as supervision.wrong=estimate or "
            f"supervision.recorded=0.7."
        )
    rows, seen = _unseen_queries(retriever, dataset)
    unseen = held_out_pairs(wanted, options.held_out, config.seed)
    if rows is not None:
        unseen = wanted & rows[evidence.pairs.queries]
    if wanted.any() and unseen.sum() < LEAST_UNSEEN:
        raise DataError(
            f"{int(unseen.sum())} pairs of {dataset.name!r} are unseen by the run ({seen}); at least {LEAST_UNSEEN} are "
            f"needed. Train it with a greater validation.share or calibration."
        )
    share = float(unseen.sum() / wanted.sum()) if wanted.any() else options.held_out
    return Estimator(evidence, options.model_copy(update={"held_out": share}), unseen, recorded), seen


def _unseen_queries(retriever: Retriever, dataset: Dataset) -> tuple[Mask | None, str]:
    """Which training queries the run did not learn from, bool [N], None where it learned from all; and that in words."""
    queries, trained, config = dataset.split("train"), retriever.metrics.training, retriever.config
    every = np.ones(len(queries), bool)
    if trained is None or trained.dataset_fingerprint not in _fingerprints(dataset):
        if trained is not None and trained.dataset == dataset.name:  # in rounds, or on what was made of it
            return every, (
                f"the run was trained on a data set that is called {dataset.name!r} too, but has another content; all pairs "
                f"count as unseen by it, and where it has seen them, fewer are found wrong than are"
            )
        return every, "the run was not trained on this data set, so that all pairs count as unseen by it"
    shares = config.validation.share, config.calibration
    uses = uses_of_queries(len(queries), *shares, config.seed, queries.labelled)
    every[uses.training] = False
    if every.any():
        return every, f"pairs of the {int(every.sum()):,} queries that the run kept aside count as unseen by it"
    return None, (
        "the run kept no queries aside, so that a share of the pairs that it has seen counts as unseen: fewer pairs are found "
        "wrong than are. With calibration=0.1 training keeps a tenth of the queries aside"
    )


def _fingerprints(dataset: Dataset) -> set[str]:
    """Of the data set, and of the same without evidence, to which votes may have been added since."""
    return (
        {dataset.fingerprint, _without_evidence(dataset).fingerprint} if dataset.evidence() else {dataset.fingerprint}
    )


def _without_evidence(dataset: Dataset) -> Dataset:
    return dataset.with_evidence("train", **_no_evidence())


def _no_evidence() -> dict[str, Any]:
    return {
        "votes": Votes.from_arrays([], [], [], []),
        "candidate_sets": CandidateSets.from_lists([], [], [], []),
        "label_bags": LabelBags.from_lists([], [], []),
    }


def _scores(retriever: Retriever, dataset: Dataset, estimator: Estimator, chance: Rows) -> PairScores:
    """By the run's embeddings, as it searches."""
    labels = retriever.labels
    places = labels.index_rows(dataset.labels.uids.to_pylist())
    if len(missing := np.flatnonzero(places < 0)):
        raise DataError(
            f"{len(missing):,} labels of {dataset.name!r} are not in the run, such as "
            f"{dataset.labels.uids[missing[0]].as_py()!r}; add them with `xmc labels add`, or train on the data set."
        )
    embeddings = torch.from_numpy(np.array(labels.embeddings[places], np.float32))
    candidates = estimator.options.candidates if estimator.sought else 0
    features = _features(retriever, dataset)
    return score_labels(retriever.model, features, embeddings, estimator.evidence.pairs, chance, candidates, World())


def _features(retriever: Retriever, dataset: Dataset) -> RaggedTokens:
    """Of the training queries."""
    encoder, split = retriever.model.query_encoder, dataset.split("train")
    tokens = encoder.featurize(pc.fill_null(split.texts, "").to_pylist(), "query")
    return replace(tokens, images=encoder.images_of(split.images))


def _written(dataset: Dataset, entries: PairEntries) -> Dataset:
    """The data set whose training pairs are these entries; those of a push between 0 and 1 count nowhere."""
    pulls, rejected = entries.pull > 0, (entries.pull == 0) & (entries.push >= 1)
    excluded = ~pulls & ~rejected
    labelled = dataset.labelled()
    if labelled is not None:
        labelled = labelled.copy()
        labelled[entries.queries[pulls | rejected]] = True
    return dataset.with_evidence(
        "train",
        positives=_matrix(entries, pulls, entries.pull),
        rejected=_matrix(entries, rejected, rejected),
        labelled=labelled,
        excluded=np.stack([entries.queries[excluded], entries.labels[excluded]], axis=1),
        **_no_evidence(),
    )


def _matrix(entries: PairEntries, kept: Mask, values: npt.NDArray[Any]) -> csr_matrix:
    indptr = np.concatenate([[0], np.cumsum(kept)])[entries.indptr]
    return csr_matrix((values[kept], entries.labels[kept], indptr), shape=(len(entries), entries.count))


def _told(retriever: Retriever, dataset: Dataset, options: SupervisionConfig) -> Mapping[str, Any]:
    """What made it, for dataset.json."""
    trained = retriever.metrics.training
    run = {} if trained is None else {"steps": trained.steps, "dataset_fingerprint": trained.dataset_fingerprint}
    return {"from": dataset.fingerprint, "run": run, "supervision": options.to_mapping()}
