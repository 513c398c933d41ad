"""Where evidence contradicts other evidence: sets and bags against given labels, and sources that say nothing of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

from xmc.arrays import Rows
from xmc.data.evidence import CandidateSets, Evidence, LabelBags, Votes
from xmc.data.evidence.rows import BY_ROW, RowNames

__all__ = ["contradictions"]

LEAST_VOTES = 20
"""Votes of a source, or pairs that two sources both vote on, from which on it is remarkable that all are alike."""
SHOWN = 5
"""Sources that a sentence names, at most."""


def contradictions(
    evidence: Evidence, positives: csr_matrix, rejected: csr_matrix, names: RowNames = BY_ROW
) -> Iterator[tuple[int, str, str]]:
    """(row of the evidence, a short phrase, a sentence) of each contradiction; of a whole source, the row is its first vote.

    positives, rejected: CSR [n, L], what is said of the queries of the split that the evidence is about. names: for sentences.
    """
    if isinstance(evidence, Votes):
        yield from _of_votes(evidence)
    elif isinstance(evidence, CandidateSets):
        yield from _of_sets(evidence, positives, rejected, names)
    elif isinstance(evidence, LabelBags):
        yield from _of_bags(evidence, positives, names)


def _of_sets(
    sets: CandidateSets, positives: csr_matrix, rejected: csr_matrix, names: RowNames
) -> Iterator[tuple[int, str, str]]:
    owners = np.repeat(np.arange(len(sets)), sets.sizes)
    pairs = sets.queries[owners], sets.labels
    given, refused = (
        np.bincount(owners[_are_in(matrix, *pairs)], minlength=len(sets)) for matrix in (positives, rejected)
    )
    of_query = np.diff(positives.indptr)[sets.queries]
    for row in np.flatnonzero((of_query > 0) & (given == 0) & (sets.least > 0)).tolist():
        query = int(sets.queries[row])
        label = int(positives.indices[positives.indptr[query]])
        of_set, such = names.query(query), names.label(label)
        message = f"the set of {of_set} has none of the labels that the query is given, such as {such}."
        yield row, "set without a given label", message
    for row in np.flatnonzero(given > sets.most).tolist():
        most, of_set = sets.most[row], names.query(int(sets.queries[row]))
        message = f"at most {most} labels of the set of {of_set} are true, but {given[row]} are given."
        yield row, "set with more given labels than true ones", message
    for row in np.flatnonzero(sets.sizes - refused < sets.least).tolist():
        message = (
            f"at least {sets.least[row]} of the {sets.sizes[row]} labels of the set of "
            f"{names.query(int(sets.queries[row]))} are true, but {refused[row]} are rejected."
        )
        yield row, "set with too many rejected labels", message


def _of_bags(bags: LabelBags, positives: csr_matrix, names: RowNames) -> Iterator[tuple[int, str, str]]:
    members = csr_matrix(
        (np.ones(len(bags.queries), np.int64), bags.queries, bags.query_indptr), shape=(len(bags), positives.shape[0])
    )
    ones = csr_matrix((np.ones(positives.nnz, np.int64), positives.indices, positives.indptr), shape=positives.shape)
    given = csr_matrix(members @ ones)
    owners = np.repeat(np.arange(len(bags)), np.diff(bags.label_indptr))
    counted = np.asarray(given[owners, bags.labels]).ravel() if len(owners) else np.zeros(0)
    for place in np.flatnonzero(counted > bags.counts).tolist():
        message = (
            f"{names.label(int(bags.labels[place]))} counts {bags.counts[place]:g} in the bag, but {counted[place]:g} of its "
            f"queries are given it."
        )
        yield int(owners[place]), "bag with more given labels than its count", message


def _of_votes(votes: Votes) -> Iterator[tuple[int, str, str]]:
    numbers = np.bincount(votes.sources, minlength=len(votes.names))
    first = dict(zip(*(found.tolist() for found in np.unique(votes.sources, return_index=True)), strict=True))
    for source in np.flatnonzero(numbers >= LEAST_VOTES).tolist():
        values = votes.values[votes.sources == source]
        if bool((values == values[0]).all()):
            message = (
                f"all {len(values):,} votes of the source {votes.names[source]!r} are {values[0]:g}: how often it is wrong can "
                f"only be told from other evidence."
            )
            yield first[source], "source whose votes are all alike", message
    for source, others in _always_agreeing(votes):
        names = ", ".join(repr(votes.names[other]) for other in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        message = (
            f"the source {votes.names[source]!r} never disagrees with {names}{more}, on {LEAST_VOTES} pairs or more: where one "
            f"is a copy of another, its votes count twice."
        )
        yield first[source], "source that never disagrees", message


def _always_agreeing(votes: Votes) -> Iterator[tuple[int, list[int]]]:
    """Each source with the later ones that it has the sign in common with on all pairs that both vote on."""
    keys = np.ones(len(votes), bool)
    keys[1:] = (np.diff(votes.queries) != 0) | (np.diff(votes.labels) != 0)
    pairs = np.cumsum(keys) - 1
    shape = (int(pairs[-1]) + 1 if len(votes) else 0, len(votes.names))
    signs = csr_matrix((np.sign(votes.values).astype(np.int64), (pairs, votes.sources)), shape=shape)
    signs.eliminate_zeros()
    shared, agreed = csr_matrix(abs(signs).T @ abs(signs)), csr_matrix(signs.T @ signs)
    for source in range(len(votes.names)):
        row, same = shared[source].toarray().ravel(), agreed[source].toarray().ravel()
        others = [other for other in np.flatnonzero((row >= LEAST_VOTES) & (same == row)).tolist() if other > source]
        if others:
            yield source, others


def _are_in(matrix: csr_matrix, rows: Rows, columns: Rows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each pair is stored in a matrix, bool [m]."""
    if not len(rows) or not matrix.nnz:
        return np.zeros(len(rows), bool)
    return np.asarray(matrix.astype(bool)[rows, columns]).ravel()
