"""Which labels a step scores and encodes, and which pairs it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from step_labels import (
    FILTERED,
    NOTHING,
    POSITIVES,
    banked,
    drawn,
    everything,
    in_batch,
    known_pairs,
    matrix,
    mined_by,
    pairs,
    world,
)
from worlds import tiny_config

from xmc.config import ClustersConfig
from xmc.data.targets import Targets
from xmc.errors import ConfigError
from xmc.metrics.propensity import propensities
from xmc.training.batches import batches_of_epoch
from xmc.training.clock import Clock
from xmc.training.distributed import World
from xmc.training.embedding import embed_labels, embed_queries
from xmc.training.negatives import JoinedNegatives
from xmc.training.negatives.clusters import Clusters
from xmc.training.negatives.in_batch import InBatch
from xmc.training.negatives.sampled import Sampled
from xmc.training.negatives.shortlist import Shortlist, mine
from xmc.training.parts import TrainingRun
from xmc.training.supervision.known import KnownPairs

"""Embeddings of queries, for sources that do not look at them."""


def test_filtered_pairs_are_neither_positives_nor_negatives() -> None:
    known = known_pairs(tiny_config(), FILTERED)
    candidates = everything().labels_of(known.batch(0, np.array([3, 0])), NOTHING)
    assert pairs(candidates) == ([(1, 0), (1, 3)], [(0, 1), (1, 7)])
    assert candidates.rows.tolist() == candidates.fresh.tolist() == list(range(8))


def test_rare_positives_are_drawn_as_often_as_their_inverse_propensity_says() -> None:
    """Label 0 is a positive of all 400 queries, label 1 of half of them, labels 2 and 3 of few."""
    lists = [[0] + [1] * (row % 2 == 0) + [2] * (row % 40 == 0) + [3] * (row % 100 == 0) for row in range(400)]
    positives = matrix(lists, 4)
    config = tiny_config(
        **{
            "objective.positives_per_query": 1,
            "objective.positives_drawn": "inverse_propensity",
            "objective.positives_propensity": [0.6, 2.6],
        }
    )
    known = known_pairs(config, positives=positives)
    counts = np.asarray(positives.getnnz(axis=0))
    chances = 1 / propensities(counts, 400, 0.6, 2.6)
    times = np.zeros(4)
    for step in range(3000):
        batch = known.batch(step, np.array([0, 0]))  # the query 0 has all four
        chosen = batch.targets.positives
        assert chosen.counts.tolist() == [1, 1]
        np.add.at(times, chosen.indices.numpy(), 1)
    np.testing.assert_allclose(times / times.sum(), chances / chances.sum(), atol=0.03)
    both = config.changed(**{"objective.positives_per_query": 2})
    two = drawn(known_pairs(both, positives=positives).batch(0, np.arange(400)).targets)
    assert two.getnnz(axis=1).max() == 2
    assert ((two > 0).multiply(positives > 0) != (two > 0)).nnz == 0


def test_positives_that_others_bring_are_positives_where_asked_for() -> None:
    lists = matrix([[0, 3], [3, 5], [2], [0, 2, 5]], 8)
    config = tiny_config(
        **{"objective.positives_per_query": 1, "objective.in_batch_positives": True}, negatives="in-batch"
    )
    known = known_pairs(config, FILTERED, positives=lists)
    for step in range(20):
        batch = known.batch(step, np.arange(4))
        candidates = in_batch().labels_of(batch, NOTHING)
        rows = candidates.rows.tolist()
        assert rows == batch.targets.positive_labels.tolist()
        chosen, out = pairs(candidates)
        assert chosen == [(query, label) for query in range(4) for label in lists[query].indices if label in rows]
        assert out == [(query, label) for query, label in FILTERED.tolist() if label in rows]


def test_what_a_teacher_says_is_scored_and_weighted() -> None:
    taught = csr_matrix(([0.75, 0.25, 1.0], ([0, 0, 2], [1, 6, 5])), (4, 8))
    known = known_pairs(tiny_config(), taught=taught)
    bank = JoinedNegatives([banked(tiny_config(negatives="bank"))], 8)
    for negatives in (in_batch(), everything(), bank):
        candidates = negatives.labels_of(known.batch(0, np.array([2, 0])), torch.zeros(2, 32))
        assert candidates.taught is not None
        positives = candidates.taught.positives
        assert positives.weights is not None
        labels = candidates.rows[positives.indices].tolist()
        assert (positives.rows.tolist(), labels) == ([0, 1, 1], [5, 1, 6])
        assert positives.weights.tolist() == [1.0, 0.75, 0.25]
        # the given positives that the teacher does not name
        exclude = candidates.taught.exclude
        assert exclude is not None
        out = list(zip(exclude.rows.tolist(), candidates.rows[exclude.indices].tolist(), strict=True))
        scored = candidates.rows.tolist()
        assert out == [pair for pair in [(0, 2), (0, 4), (1, 0), (1, 3)] if pair[1] in scored]


def test_positives_that_are_not_drawn_count_nowhere() -> None:
    known = known_pairs(tiny_config(**{"objective.positives_per_query": 1}))
    seen = set()
    for step in range(40):
        batch = known.batch(step, np.array([2, 0, 3]))
        chosen, out = pairs(in_batch().labels_of(batch, NOTHING))
        assert len(chosen) == 2
        assert not set(chosen) & set(out)
        assert {label for _, label in out} <= {0, 2, 3, 4, 5}
        chosen_of_all, out_of_all = pairs(everything().labels_of(batch, NOTHING))
        assert sorted(chosen_of_all + out_of_all) == [(0, 2), (0, 4), (0, 5), (1, 0), (1, 3)]
        seen |= set(chosen)
    assert seen == {(0, 2), (0, 4), (0, 5), (1, 0), (1, 3)}
    first, again = (known.batch(7, np.array([2, 0, 3])).targets.positive_labels for _ in range(2))
    assert first.tolist() == again.tolist()


def test_in_batch_scores_the_positives_of_the_batch_alone() -> None:
    known = known_pairs(tiny_config(), FILTERED)
    candidates = in_batch().labels_of(known.batch(0, np.array([0, 1, 3])), NOTHING)
    assert candidates.rows.tolist() == [0, 1, 3]
    assert pairs(candidates) == ([(0, 0), (0, 3), (1, 1)], [(2, 1)])
    assert candidates.log_inclusion is None


def test_labels_of_other_sources_are_in_any_sample() -> None:
    class Fixed(InBatch):
        kind = "fixed"

        def rows(self, batch: object) -> np.ndarray:
            return np.array([6, 6, 2])

    known = known_pairs(tiny_config(), FILTERED)
    sampled = Sampled(POSITIVES, 3, 2, seed=0)
    candidates = in_batch(sampled, Fixed()).labels_of(known.batch(0, np.array([1, 0])), NOTHING)
    assert candidates.log_inclusion is not None
    by_label = dict(zip(candidates.rows.tolist(), candidates.log_inclusion.tolist(), strict=True))
    assert by_label[6] == by_label[2] == 0.0
    assert by_label[1] == pytest.approx(sampled.log_inclusions[1])
    assert by_label[1] < 0


def test_mined_windows_are_the_ranks_asked_for_without_known_labels() -> None:
    config, model, data = world(
        negatives="shortlist",
        **{"negatives.shortlist.size": 2, "negatives.shortlist.window_start": 1, "negatives.shortlist.window_end": 4},
    )
    lists = mine(
        model,
        data.query_features,
        data.label_features,
        data.known.targets.not_negative,
        mined_by(config),
        World(),
    )
    assert lists.shape == (400, 3)
    scores = embed_queries(model, data.query_features) @ embed_labels(model, data.label_features, World()).numpy().T
    for row in range(0, 400, 37):
        known = data.known.targets.not_negative[row].indices
        ranked = [label for label in np.argsort(-scores[row], kind="stable") if label not in known]
        assert lists[row].tolist() == sorted(ranked[1:4])


def test_shortlist_is_used_one_refresh_after_it_was_mined() -> None:
    """Mined in the background from a snapshot: what the model does in between does not matter."""
    config, model, data = world(
        negatives="shortlist",
        **{"negatives.shortlist.size": 2, "negatives.shortlist.window_end": 3, "negatives.shortlist.refresh_steps": 4},
    )
    shortlist = Shortlist(mined_by(config), config.seed, World())
    known, seen = data.known.targets.not_negative, []
    at_step_4 = None
    for step in range(13):
        if step == 4:
            at_step_4 = mine(
                model,
                data.query_features,
                data.label_features,
                known,
                mined_by(config),
                World(),
            )
        shortlist.refresh(step, model, data.query_features, data.label_features, known)
        with torch.no_grad():
            model.query_encoder.table.vectors.normal_(generator=torch.Generator().manual_seed(step))  # type: ignore[union-attr, operator]
        seen.append(shortlist.lists)
    shortlist.close()
    assert all(np.array_equal(seen[0], lists) for lists in seen[:8])
    assert at_step_4 is not None
    assert not np.array_equal(at_step_4, seen[0])
    assert all(np.array_equal(at_step_4, lists) for lists in seen[8:12])
    batch = data.known.batch(2, np.arange(10))
    rows = shortlist.rows(batch)
    assert len(rows) == 20
    assert set(rows) <= set(shortlist.lists[:10].ravel().tolist())


def test_fewer_labels_than_the_window() -> None:
    config, model, data = world(
        negatives="shortlist", **{"negatives.shortlist.size": 10, "negatives.shortlist.window_end": 12}
    )
    shortlist = Shortlist(mined_by(config), 0, World())
    shortlist.refresh(0, model, data.query_features, data.label_features, data.known.targets.not_negative)
    batch = data.known.batch(0, np.arange(50))
    known = data.known.targets.not_negative[:50]
    assert (shortlist.lists[:50] >= 0).sum(1).tolist() == (12 - known.getnnz(axis=1)).tolist()
    assert set(shortlist.rows(batch)) <= set(range(12))


def test_cluster_batches_hold_whole_clusters_and_every_query_once() -> None:
    config = tiny_config(
        negatives="clusters",
        batch_size=100,
        **{
            "negatives.clusters.first_epoch": 2,
            "negatives.clusters.size": 5,
            "negatives.clusters.doubling_epochs": [4],
        },
    )
    run = TrainingRun(config, *world()[1:])
    clusters = Clusters(config.negatives_of(ClustersConfig), config.batch_size, config.seed)
    random = np.random.default_rng(0)
    groups = random.permutation(np.repeat(np.arange(40), 10))
    points = np.eye(40, dtype=np.float32)[groups] + 0.01 * random.standard_normal((400, 40)).astype(np.float32)
    together = []
    for epoch in range(4):
        if clusters.are_due(epoch):
            clusters.cluster(epoch, points)
        order = batches_of_epoch(run, [clusters], epoch)
        assert sorted(np.concatenate(order).tolist()) == list(range(400))
        assert [len(rows) for rows in order] == [100] * 4
        # how many of the other queries of its group a query meets in its batch, of 9
        together.append(np.mean([(groups[rows] == groups[row]).sum() - 1 for rows in order for row in rows]))
    assert together[0] < 3
    assert together[1] > 4
    assert together[3] > together[1] + 1
    assert len(np.unique(clusters.clusters)) == 40
    orders = []
    for _ in range(2):
        clusters = Clusters(config.negatives_of(ClustersConfig), config.batch_size, config.seed)
        clusters.cluster(2, points)
        orders.append(np.concatenate(batches_of_epoch(run, [clusters], 2)))
    assert np.array_equal(*orders)


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ("all+sampled", "negatives all scores every label; it cannot be joined"),
        ("in-batch+bank", "negatives bank scores every label"),
        ("sampled+sampled", "names one kind twice"),
        ("hard", "must be one of all, bank, in-batch, sampled, shortlist, clusters, but is 'hard'"),
    ],
)
def test_compositions_that_make_no_sense_are_refused(negatives: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(negatives=negatives)


def test_clock_shares_sum_to_one() -> None:
    clock = Clock()
    for name in ("data", "encode", "data"):
        with clock.of(name):
            sum(range(1000))
    shares = clock.shares()
    assert set(shares) == {"data", "encode"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert clock.shares() == {}


def test_a_positive_that_the_filter_names_counts_nowhere() -> None:
    """It is not drawn, not trained on, not pushed, and never mined."""
    filtered = np.array([[0, 3], [2, 4], [3, 1]])
    known = known_pairs(tiny_config(**{"objective.positives_per_query": 1}), filtered)
    for step in range(20):
        batch = known.batch(step, np.arange(4))
        chosen, out = pairs(everything().labels_of(batch, NOTHING))
        assert chosen[0] == (0, 0)
        assert {(0, 3), (2, 4), (3, 1)} <= set(out)
        assert {label for query, label in chosen if query == 2} <= {2, 5}
        assert 3 not in in_batch().labels_of(batch, NOTHING).rows
    assert known.targets.not_negative.toarray()[filtered[:, 0], filtered[:, 1]].all()


def test_labels_judged_not_relevant_are_scored_with_their_query_and_pushed() -> None:
    rejected = matrix([[], [6], [], [0, 7]], 8).astype(bool)
    known = KnownPairs(Targets.from_pairs(POSITIVES, rejected), tiny_config())
    for rows, expected in (([0], [0, 3]), ([1], [1, 6]), ([1, 3], [0, 1, 6, 7])):
        step = in_batch().labels_of(known.batch(0, np.array(rows)), NOTHING)
        assert step.rows.tolist() == expected
        assert step.targets.exclude is None
        assert step.targets.rejected_labels.tolist() == [
            expected.index(label) for label in sorted({*rejected[rows].indices})
        ]
    assert not known.targets.not_negative[3].nnz  # a shortlist may mine them


@pytest.mark.parametrize(
    "given",
    [
        {"objective.positives_per_query": 1},
        pytest.param({"objective.positives_per_query": 2}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_taught", [False, True])
def test_a_sample_holds_labels_as_often_as_it_says(given: dict[str, object], is_taught: bool) -> None:
    """Some positives are not drawn, one is filtered, and two labels come along as rejected; batches are of one query."""
    taught = csr_matrix(([0.7, 0.3, 0.5, 0.5], ([0, 0, 2, 2], [0, 7, 1, 6])), (4, 8)) if is_taught else None
    rejected = csr_matrix((np.ones(2, bool), ([1, 2], [5, 6])), (4, 8))
    targets = Targets.from_pairs(POSITIVES, rejected, np.array([[2, 5], [0, 7]]))
    known = KnownPairs(targets, tiny_config(**given), taught)
    sampled = Sampled(known.brought(), 2, 1, seed=0)
    negatives, random, rounds = JoinedNegatives([sampled], 8), np.random.default_rng(1), 6000
    times = np.zeros(8)
    for step in range(rounds):
        times[negatives.labels_of(known.batch(step, random.integers(0, 4, 1)), NOTHING).rows.numpy()] += 1
    claimed = np.exp(sampled.log_inclusion(np.arange(8)))
    np.testing.assert_allclose(claimed, times / rounds, atol=0.025)
    assert claimed.min() == pytest.approx(0.25)  # the label 7 is filtered where the teacher names it
