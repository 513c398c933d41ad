"""`xmc.fit_memory`: a memory of a data set's training queries, and how they vote, chosen on queries kept aside."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import compute as pc

from xmc.arrays import Embeddings, Ids, Mask
from xmc.data.dataset import Dataset, opened
from xmc.data.splits import Split
from xmc.data.targets import Targets
from xmc.encoders.dual import DualEncoder
from xmc.encoders.sentence_transformers.conversion import from_sentence_transformers
from xmc.errors import ConfigError, DataError
from xmc.evaluation.gather import true_ids
from xmc.evaluation.held_aside import AsideQueries, queries_to_fit_on, queries_to_remember
from xmc.evaluation.memory_rules import DEPTH, Trials, choose_rule
from xmc.progress import progress
from xmc.search.fitted import FittedOn
from xmc.search.memory.encoder import placed_beside
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule
from xmc.search.retriever import Retriever
from xmc.search.run_directory import RunDirectory
from xmc.search.stages import Corridor, SearchRequest
from xmc.storage.manifests import MANIFEST

__all__ = ["FittedMemory", "fit_memory", "memory_by_default"]

logger = logging.getLogger("xmc.evaluation")

OWN, AUTO = "own", "auto"
MOST_QUERIES = 5_000
"""Queries that rules are tried on; with this number the gains are certain to a few tenths of a percent."""


@dataclass(frozen=True)
class FittedMemory:
    """What fitting found: how queries vote, whether that gains, and the means in percent of measures without and with votes.

    memory: what is remembered; None where it is not used. queries: number of those that the rule was chosen on.
    """

    rule: VotingRule
    gains: bool
    without: dict[str, float]
    with_votes: dict[str, float]
    memory: QueryMemory | None
    queries: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        size = {} if self.memory is None else {"remembered": len(self.memory), "bytes": self.memory.bytes_by_part}
        measured = {"without": self.without, "with_votes": self.with_votes, "queries": self.queries}
        return {"rule": self.rule.to_dict(), "gains": self.gains, **measured, **size}


@progress("fitting the memory of queries")
def fit_memory(
    retriever: Retriever,
    dataset: Dataset | str | Path,
    memory: str | Path = AUTO,
    *,
    split: str | None = None,
    share: float | None = None,
    index: str = "auto",
) -> FittedMemory:
    """Give a retriever a memory of the data set's training queries, which `save` writes with the run.

    dataset: may be a name or a directory, as of `Dataset.load`. The training queries that the run learned from are remembered,
        and those held out for validation where the rule is chosen on them; those kept aside for calibration never are.
    memory: "auto" for vectors of the run's own encoder, used only where queries kept aside gain from it; "own" for these in any
        case; or the directory of another encoder, of sentence-transformers or a run, by which queries are remembered.
    split, share: of queries that the rule is chosen on, see xmc.evaluation.held_aside.queries_to_fit_on.
    index: of the remembered queries, see QueryMemory.from_lists.

    Labels may change meanwhile: the queries vote for those of the beginning that are still there.
    Raises DataError where too few queries are kept aside, ConfigError for a directory that holds no encoder, InputError for
    options out of range.
    """
    dataset = opened(dataset)
    given, retriever = retriever, retriever.at_one_version()
    aside, on = queries_to_fit_on(retriever, dataset, split, share)
    encoder = None if str(memory) in (OWN, AUTO) else _read_encoder(retriever, Path(memory))
    if len(aside.queries) > MOST_QUERIES:
        rows = np.random.default_rng(0).permutation(len(aside.queries))[:MOST_QUERIES]
        aside = aside.take(np.sort(rows))
    remembered = _Remembered.from_training(retriever, dataset, encoder, on)
    trials = _trials(retriever, dataset, aside, remembered.memory(index, ~remembered.fitted), encoder)
    rule, gains = choose_rule(trials, _unit(retriever, trials))
    before, after = (
        {name: float(values.mean()) for name, values in trials.measures(tried).items()} for tried in (None, rule)
    )
    used = gains or str(memory) != AUTO
    made = remembered.memory(index) if used else None
    if used:
        given.use_memory(made, RecallQueries(rule, encoder, on))
    result = FittedMemory(rule, gains, before, after, made, len(aside.queries))
    logger.info("memory: %s; on %d queries of %r %s", rule, result.queries, on.split, _told(before, after))
    return result


def memory_by_default(retriever: Retriever, dataset: Dataset, memory: str | Path) -> None:
    """Give a retriever a memory whose queries vote by the default rule: for runs without queries kept aside."""
    encoder = None if str(memory) in (OWN, AUTO) else _read_encoder(retriever, Path(memory))
    remembered = _Remembered.from_training(retriever, dataset, encoder)
    retriever.use_memory(remembered.memory(AUTO), RecallQueries(VotingRule(), encoder))


def _told(before: dict[str, float], after: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} -> {after[name]:.2f}" for name, value in before.items())


def _read_encoder(retriever: Retriever, directory: Path) -> DualEncoder:
    """The encoder of a run directory, or of a directory of sentence-transformers, where the retriever's runs."""
    if (directory / MANIFEST).is_file():
        model, _, _ = RunDirectory(directory).read_model_and_labels()
    elif directory.is_dir():
        model, _ = from_sentence_transformers(directory, [], "exact")
    else:
        raise ConfigError(
            f"memory must be auto, none, own, or a directory with an encoder, but {str(directory)!r} is no directory."
        )
    return placed_beside(retriever.model, model)


@dataclass(frozen=True)
class _Remembered:
    """Queries to remember: vectors float32 [N, D] by an encoder of this name, label ids, texts; on which a rule is fitted."""

    vectors: Embeddings
    ids: list[Ids]
    texts: list[str]
    encoder: str
    fitted: Mask

    @classmethod
    def from_training(
        cls, retriever: Retriever, dataset: Dataset, encoder: DualEncoder | None, on: FittedOn | None = None
    ) -> _Remembered:
        """The training queries that have labels of the retriever; DataError where there are none."""
        given, fitted = queries_to_remember(retriever, dataset, on)
        ids = [listed[listed >= 0] for listed in _true(retriever, dataset, given.targets)]
        rows = np.flatnonzero([len(listed) for listed in ids])
        if not (len(rows) and (~fitted[rows]).any()):
            raise DataError(
                f"No training query of {dataset.name!r} has a label of the retriever, so there is nothing to remember."
            )
        queries = given.queries.take(rows)
        name = RecallQueries(VotingRule(), encoder).encoder_name
        vectors = _vectors(retriever, queries, encoder)
        return cls(vectors, [ids[row] for row in rows], _texts(queries), name, fitted[rows])

    def memory(self, index: str, kept: Mask | None = None) -> QueryMemory:
        """A memory of all, or of some."""
        rows = np.arange(len(self.texts)) if kept is None else np.flatnonzero(kept)
        ids, texts = [self.ids[row] for row in rows], [self.texts[row] for row in rows]
        return QueryMemory.from_lists(self.vectors[rows], ids, texts, self.encoder, index)


def _trials(
    retriever: Retriever, dataset: Dataset, aside: AsideQueries, memory: QueryMemory, encoder: DualEncoder | None
) -> Trials:
    queries, targets = aside.queries, aside.targets
    corridor = Corridor.for_model(retriever.model)
    most = int(np.diff(targets.excluded.indptr).max(initial=0))
    own = _vectors(retriever, queries, None)
    state = corridor.begin(SearchRequest(DEPTH + most), retriever.labels, own)
    for name in ("encode", "candidates"):
        state = corridor[name](state)
    vectors = own if encoder is None else _vectors(retriever, queries, encoder)
    excluded = Targets.from_pairs(targets.excluded.astype(np.float32))
    return Trials.from_search(
        state, memory, vectors, _true(retriever, dataset, targets), _true(retriever, dataset, excluded)
    )


def _true(retriever: Retriever, dataset: Dataset, targets: Targets) -> list[Ids]:
    """The label ids of each query's true labels, below 0 for labels that the retriever lacks."""
    return [np.array(listed, np.int64) for listed in true_ids(retriever, dataset, targets)]


def _vectors(retriever: Retriever, queries: Split, encoder: DualEncoder | None) -> Embeddings:
    model = retriever.model if encoder is None else encoder
    return model.embed_queries(_texts(queries), model.query_encoder.images_of(queries.images))


def _texts(queries: Split) -> list[str]:
    texts: list[str] = pc.fill_null(queries.texts, "").to_pylist()
    return texts


def _unit(retriever: Retriever, trials: Trials) -> float:
    """What scores and similarities are measured in: 1 for cosines, else the median score of the best labels."""
    if retriever.model.normalize:
        return 1.0
    return max(float(np.median(np.abs(trials.scores.max(axis=1)))), float(np.finfo(np.float32).tiny))
