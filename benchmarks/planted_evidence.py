"""Data sets whose training queries have evidence in place of labels, made from a labelled one: bags, candidate sets, votes.

As in benchmarks/planted.py, the same seed gives the same data set, and all but the training split stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from planted import keys_of, with_train, wrong_by_frequency, wrong_labels
from scipy.sparse import csr_matrix

from xmc.data.dataset import Dataset
from xmc.data.evidence import CandidateSets, LabelBags, Votes

__all__ = [
    "all_of_sets",
    "by_majority",
    "hidden_in_sets",
    "in_bags",
    "log_losses",
    "source_name",
    "voted",
    "with_verdicts",
    "without_labels",
]

Rows = npt.NDArray[np.int64]
DECOY_PLACES = 25
"""How far in the order of frequency a label is from the true one that it hides."""


def in_bags(data: Dataset, bags: Sequence[Rows]) -> Dataset:
    """Label proportions: no query is labelled, of each bag the number of its queries with each label is known."""
    true = data.split("train").positives.astype(bool).astype(np.float32)
    counts = [np.asarray(true[rows].sum(axis=0)).ravel() for rows in bags]
    labels = [np.flatnonzero(of_bag) for of_bag in counts]
    of_labels = [of_bag[named] for of_bag, named in zip(counts, labels, strict=True)]
    return without_labels(data, label_bags=LabelBags.from_lists(list(bags), labels, of_labels))


def hidden_in_sets(data: Dataset, decoys: int, seed: int) -> Dataset:
    """Candidate sets: no query is labelled; each true label is one of a set of labels, the others of its frequency.

    decoys: number of the others, each within DECOY_PLACES places of the true label in the order of frequency; none is true of
    the query, nor in another set of it.
    """
    generator, labels = np.random.default_rng(seed), len(data.labels)
    keys = keys_of(data)
    counts = np.bincount(keys % labels, minlength=labels)
    order = generator.permutation(labels)
    order = order[np.argsort(-counts[order], kind="stable")]
    place = np.argsort(order)
    queries, true = np.divmod(np.repeat(keys, decoys), labels)

    def near(which: Rows) -> Rows:
        places = place[true[which]] + generator.integers(-DECOY_PLACES, DECOY_PLACES + 1, len(which))
        return order[np.clip(places, 0, labels - 1)]

    wrong = wrong_labels(data, queries, near).reshape(len(keys), decoys)
    sets = [
        [label, *others[others >= 0].tolist()] for label, others in zip((keys % labels).tolist(), wrong, strict=True)
    ]
    one = [1] * len(keys)
    return without_labels(data, candidate_sets=CandidateSets.from_lists(keys // labels, sets, one, one))


def all_of_sets(data: Dataset) -> Dataset:
    """Every label of a candidate set as a given label."""
    sets = data.candidate_sets("train")
    assert sets is not None
    return with_train(data, np.unique(np.repeat(sets.queries, sets.sizes) * len(data.labels) + sets.labels))


def source_name(accuracy: float) -> str:
    """What `voted` calls a source."""
    return f"right {accuracy:.0%}"


def voted(data: Dataset, accuracies: Sequence[float], seed: int) -> Dataset:
    """Weak sources: no query is labelled; sources vote on the true pairs, and on as many wrong ones drawn by frequency.

    Each source votes on a half of these pairs, drawn at random, and is right with its accuracy, after which it is named.
    """
    generator, labels = np.random.default_rng(seed), len(data.labels)
    pairs = keys_of(wrong_by_frequency(data, 1.0, seed))
    true = np.isin(pairs, keys_of(data))
    queries, named, sources, values = [], [], [], []
    for accuracy in accuracies:
        covered = generator.choice(len(pairs), len(pairs) // 2, replace=False)
        right = generator.random(len(covered)) < accuracy
        queries.append(pairs[covered] // labels)
        named.append(pairs[covered] % labels)
        sources += [source_name(accuracy)] * len(covered)
        values.append(np.where(right == true[covered], 1.0, -1.0))
    votes = Votes.from_arrays(*map(np.concatenate, (queries, named)), sources, np.concatenate(values))
    return without_labels(data, votes=votes)


def with_verdicts(clean: Dataset, data: Dataset, best: Rows, wrong: float, seed: int) -> Dataset:
    """The data set with the votes of a source "reviewer" on each query's best labels that are not given.

    best: int64 [n, k], the labels, -1 for none; see `planted.not_given`. wrong: the chance of a verdict to be wrong.
    """
    labels = len(data.labels)
    rows, columns = np.nonzero(best >= 0)
    keys = np.unique(rows * labels + best[rows, columns])
    right = np.random.default_rng(seed).random(len(keys)) >= wrong
    values = np.where(right == np.isin(keys, keys_of(clean)), 1.0, -1.0)
    return data.with_evidence(
        "train", votes=Votes.from_arrays(keys // labels, keys % labels, ["reviewer"] * len(keys), values)
    )


def by_majority(data: Dataset, names: Collection[str] = ()) -> Dataset:
    """Votes as given labels: the pairs with more votes for than against; of the sources `names` alone where there are some."""
    votes = data.votes("train")
    assert votes is not None
    used = np.isin(votes.sources, [place for place, name in enumerate(votes.names) if not names or name in names])
    keys = votes.queries[used] * len(data.labels) + votes.labels[used]
    pairs, places = np.unique(keys, return_inverse=True)
    return with_train(data, pairs[np.bincount(places, votes.values[used]) > 0])


def log_losses(clean: Dataset, data: Dataset, probabilities: npt.NDArray[np.floating]) -> tuple[float, float]:
    """The mean of -log of what is said of the truth of each pair that is voted on, by probabilities and by majority.

    probabilities: of the pairs in the order of query and label, [n]. The majority says (votes for + 1) / (votes + 2).
    """
    votes = data.votes("train")
    assert votes is not None
    pairs, places = np.unique(votes.queries * len(data.labels) + votes.labels, return_inverse=True)
    majority = (np.bincount(places, votes.values > 0) + 1) / (np.bincount(places) + 2)
    true = np.isin(pairs, keys_of(clean))
    losses = []
    for said in (np.clip(np.asarray(probabilities, np.float64), 1e-4, 1 - 1e-4), majority):
        losses.append(float(-np.log(np.where(true, said, 1 - said)).mean()))
    return losses[0], losses[1]


def without_labels(data: Dataset, **evidence: Any) -> Dataset:
    """The data set with evidence in place of the labels of training queries."""
    shape = data.split("train").positives.shape
    return data.with_evidence(
        "train", positives=csr_matrix(shape, dtype=np.float32), labelled=np.zeros(shape[0], bool), **evidence
    )
