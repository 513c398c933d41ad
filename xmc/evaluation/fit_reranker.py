"""`xmc.fit_reranker`: from a retriever and queries it was not trained on to a stage that scores its first labels anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmc.arrays import Embeddings
from xmc.data.dataset import Dataset, opened
from xmc.errors import ConfigError, DataError, InputError, require_package
from xmc.evaluation.cross_fitting import CrossFitted, CrossFitting
from xmc.evaluation.evaluate import compare
from xmc.evaluation.held_aside import AsideQueries, queries_to_fit_on
from xmc.evaluation.predicted import dataset_rows
from xmc.evaluation.shortlists import Shortlists
from xmc.indexes.checks import require_count
from xmc.metrics import UNKNOWN_LABEL, Measure
from xmc.metrics.propensity import propensities
from xmc.progress import progress
from xmc.search.memory.stage import RecallQueries
from xmc.search.other_encoder import OtherEncoder
from xmc.search.rerank.features import FeatureContext
from xmc.search.rerank.registry import FEATURES, MODELS
from xmc.search.rerank.stage import SHORTLIST, Rerank
from xmc.search.retriever import Retriever

__all__ = ["FittedReranker", "fit_reranker"]

logger = logging.getLogger("xmc.rerank")


@dataclass(frozen=True)
class FittedReranker:
    """A re-ranker, and what it is worth on the n queries that it was fitted on, in percent.

    before: metrics of the ranking as it was. trial: the settings that were chosen, with the metrics of models that were fitted
    on other queries than they ranked; the re-ranker itself is fitted on all of them.
    """

    stage: Rerank
    queries: int
    before: Mapping[str, float]
    trial: CrossFitted

    @property
    def after(self) -> Mapping[str, float]:
        """Metrics of the new ranking, by cross-fitting."""
        return self.trial.metrics

    @property
    def gains(self) -> bool:
        """Whether the mean of the metrics rises."""
        return self.trial.mean > float(np.mean(list(self.before.values())))

    def __repr__(self) -> str:
        """Metrics before and after."""
        changes = ", ".join(f"{name} {self.before[name]:.2f} -> {self.after[name]:.2f}" for name in self.before)
        return f"<{type(self).__name__}: {self.stage.model.name}, {self.queries:,} queries: {changes}>"


@progress("fitting the re-ranker")
def fit_reranker(
    retriever: Retriever,
    dataset: Dataset | str | Path,
    features: Sequence[str] | None = None,
    model: str = "trees",
    *,
    shortlist: int = SHORTLIST,
    split: str | None = None,
    share: float | None = None,
    encoder: str | Path | None = None,
    cross_encoder: str | Path | None = None,
    seed: int = 0,
) -> FittedReranker:
    """Fit a re-ranker on queries that the retriever was not trained on, and give it to the retriever; `save` writes it.

    A re-ranker that it had is replaced. Labels may change meanwhile: it is fitted on those of the beginning.

    dataset: may be a name or a directory, as of `Dataset.load`.
    features: families of features, see xmc.search.rerank.registry.FEATURES; by default all that there is something for.
    model: "trees", boosted trees, or "logistic", logistic regression. shortlist: labels of a query that are scored anew.
    split, share: the queries; by default those held out for validation or half of those kept for calibration, see
        xmc.evaluation.held_aside.queries_to_fit_on.
    encoder: directory of a sentence-transformers model, for the family "cosine"; it becomes a part of the run. By default that
        of the memory, where it has another than the run's.
    cross_encoder: directory of a sequence classifier of the package transformers, for the family "cross_encoder"; likewise.
    seed: of the folds.

    Settings are chosen by cross-fitting in five folds of the queries: by the mean of P@1, P@5, nDCG@5 and PSP@5, among
    those that keep PSP@5 where there are such.

    Raises
    ------
    DataError: a split that the run was trained on, fewer than 100 queries, or none with a true label among its candidates.
    InputError: what is no retriever, a shortlist below 1, a family without what it needs, or stages that were exchanged
    meanwhile. ConfigError: a family or model
    that is not there, and an encoder that cannot be used. DependencyError: no scikit-learn.
    """
    if not isinstance(retriever, Retriever):
        raise InputError(
            f"The re-ranker is given to the retriever, so it must be a Retriever, but is {retriever!r:.100}."
        )
    if require_count(shortlist, "shortlist") < 1:
        raise InputError(f"shortlist must be at least 1, but is {shortlist}.")
    kind = MODELS[model]
    dataset = opened(dataset)
    require_package("sklearn", "Re-rankers are fitted", "scikit-learn")
    given, retriever = retriever, retriever.at_one_version()
    aside, on = queries_to_fit_on(retriever, dataset, split, share)
    cross = None if cross_encoder is None else Path(cross_encoder)
    context = FeatureContext(retriever.labels, _counts(retriever, dataset, aside), _encoder(retriever, encoder), cross)
    made = [FEATURES[name].from_context(context) for name in _families(features, context)]
    shortlists = Shortlists.from_search(
        retriever, retriever.labels, dataset, aside.queries, aside.targets, made, shortlist
    )
    if not (shortlists.true & shortlists.counted).any():
        raise DataError(
            f"No query of {dataset.name!r} has a true label among its first {shortlist}: nothing to learn from."
        )

    def metrics(scores: Embeddings) -> Mapping[str, float]:
        return _metrics(shortlists, scores, dataset, aside)

    inverse = _inverse_propensities(shortlists, dataset, aside)
    crossed = CrossFitting.from_shortlists(kind, shortlists, inverse, seed, metrics)
    before = metrics(shortlists.scores)
    trial = crossed.best(before)
    fitted = crossed.fitted(np.arange(len(shortlists)), trial.settings, trial.exponent)
    result = FittedReranker(Rerank(made, fitted, shortlist, on), len(shortlists), before, trial)
    logger.info("fitted a re-ranker on the split %r of %r: %r", on.split, dataset.name, result)
    given.use_reranker(result.stage, beside=retriever.stages)
    return result


def _families(features: Sequence[str] | None, context: FeatureContext) -> list[str]:
    """Those that are named; by default all that there is something for."""
    if features is None:
        there = {
            "neighbours": context.labels.memory,
            "cosine": context.encoder,
            "cross_encoder": context.cross_encoder,
        }
        return ["scores", *(name for name, given in there.items() if given is not None)]
    if isinstance(features, str):
        raise InputError(f"features must be a list of names; put {features!r} into a list.")
    for name in features:
        FEATURES[name]
    if not features or len(set(features)) < len(features):
        raise ConfigError(f"features must name one family or several, each once, but are {list(features)}.")
    return list(features)


def _encoder(retriever: Retriever, directory: str | Path | None) -> OtherEncoder | None:
    """That of a directory, or of the memory, where it has another than the run's."""
    if directory is not None:
        return OtherEncoder.from_directory(directory, retriever.model)
    recalling = next((stage for stage in retriever.stages if isinstance(stage, RecallQueries)), None)
    if recalling is None or recalling.encoder is None:
        return None
    return OtherEncoder(recalling.encoder, recalling.encoder_name)


def _counts(retriever: Retriever, dataset: Dataset, aside: AsideQueries) -> npt.NDArray[np.int32]:
    """The number of training queries of each label id, int32 [ids]; zeros without a training split."""
    labels = retriever.labels
    counts = np.zeros(labels.next_id, np.int32)
    if aside.training is not None:
        rows = dataset_rows(labels, dataset)[:-1]
        shared = rows != UNKNOWN_LABEL
        counts[labels.ids[shared]] = aside.training.targets().positive_counts[rows[shared]]
    return counts


def _inverse_propensities(shortlists: Shortlists, dataset: Dataset, aside: AsideQueries) -> npt.NDArray[np.float64]:
    """Of each candidate, float64 [n, m]; 1 for labels that the data set lacks, and for all without a training split."""
    if aside.training is None:
        return np.ones(shortlists.ids.shape)
    counts = aside.training.targets().positive_counts
    inverse = 1 / propensities(counts, len(aside.training), *dataset.propensity)
    labels = shortlists.labels
    return np.where(labels >= 0, inverse[np.maximum(labels, 0)], 1.0)


def _metrics(shortlists: Shortlists, scores: Embeddings, dataset: Dataset, aside: AsideQueries) -> Mapping[str, float]:
    """P@1, P@5, nDCG@5 and, with a training split, PSP@5 of candidates in the order of these scores, in percent."""
    order = np.argsort(-scores, axis=1, kind="stable")
    labels, ordered = np.take_along_axis(shortlists.labels, order, 1), np.take_along_axis(scores, order, 1)
    measures = [Measure("p", 1), Measure("p", 5), Measure("ndcg", 5)]
    if aside.training is not None:
        measures.append(Measure("psp", 5))
    return compare(labels, ordered, dataset, aside.targets, aside.training, measures).values
