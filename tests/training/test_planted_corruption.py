"""benchmarks/planted.py: what is planted is what was asked for, and nothing else; and the table that judges what repairs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from xmc.data.dataset import Dataset

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SUBJECTS = ("apple pear fruit", "iron steel metal", "violin flute music", "rain snow weather")
QUERIES, LABELS = 120, 60


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import planted

    return planted


@pytest.fixture(scope="module")
def clean() -> Dataset:
    """Query i and label j are of subject i % 4 and j % 4; the lower its number, the more queries a label has."""
    generator = np.random.default_rng(0)
    lists = []
    for query in range(QUERIES):
        chances = 1.0 / (1 + np.arange(query % 4, LABELS, 4))
        own = generator.choice(np.arange(query % 4, LABELS, 4), 5, replace=False, p=chances / chances.sum())
        lists.append(own.tolist())
    texts = [f"{SUBJECTS[query % 4]} number {query}" for query in range(QUERIES)]
    labels = [f"{SUBJECTS[label % 4].split()[0]} kind {label}" for label in range(LABELS)]
    splits = {"train": (texts, lists), "test": (texts[:8], lists[:8])}
    filters = {"train": np.array([[0, 1], [1, 0]]), "test": np.array([[2, 2]])}
    return Dataset.from_lists("small", labels, splits, label_uids=[f"l{row}" for row in range(LABELS)], filters=filters)


def keys(data: Dataset) -> set[tuple[int, int]]:
    queries, labels = data.split("train").positives.nonzero()
    return set(zip(queries.tolist(), labels.tolist(), strict=True))


def same_elsewhere(data: Dataset, clean: Dataset) -> bool:
    """Whether labels, texts, the test split and its filter are the clean ones."""
    test = (data.split("test").positives != clean.split("test").positives).nnz == 0
    texts = data.split("train").texts.equals(clean.split("train").texts) and data.labels.uids.equals(clean.labels.uids)
    return test and texts and np.array_equal(data.filter("test"), clean.filter("test"))


@pytest.mark.parametrize("share", [0.2, 0.5, 1.5])
@pytest.mark.parametrize("how", ["wrong_by_frequency", "wrong_similar"])
def test_wrong_pairs_are_added_and_none_of_them_is_true(planted: Any, clean: Dataset, how: str, share: float) -> None:
    data = getattr(planted, how)(clean, share, seed=3)
    true, given = keys(clean), keys(data)
    assert true < given
    assert len(given) - len(true) == round(share * len(true))
    assert not (given - true) & {(0, 1), (1, 0)}
    assert same_elsewhere(data, clean)
    assert np.array_equal(data.filter("train"), clean.filter("train"))
    assert (
        keys(getattr(planted, how)(clean, share, seed=3)) == given != keys(getattr(planted, how)(clean, share, seed=4))
    )


def test_frequent_labels_are_wrong_more_often(planted: Any, clean: Dataset) -> None:
    drawn = np.zeros(LABELS)
    for seed in range(20):
        for _, label in keys(planted.wrong_by_frequency(clean, 0.3, seed)) - keys(clean):
            drawn[label] += 1
    counts = np.asarray(clean.split("train").positives.getnnz(axis=0))
    frequent = counts >= 20
    ratio = (drawn[frequent].sum() / drawn.sum()) / (counts[frequent].sum() / counts.sum())
    assert 0.8 < ratio < 1.1  # below 1, for a frequent label is true more often and cannot be wrong there


def test_similar_labels_are_of_the_same_subject(planted: Any, clean: Dataset) -> None:
    nearest = planted.similar_labels(clean, 8)
    assert nearest.shape == (LABELS, 8)
    rows = np.arange(LABELS)[:, None]
    assert not (nearest == rows).any()
    assert (nearest % 4 == rows % 4).mean() > 0.95
    assert all(len(set(row)) == 8 for row in nearest.tolist())


def test_what_is_missing_was_given(planted: Any, clean: Dataset) -> None:
    true = keys(clean)
    dropped, single, stripped = (
        planted.drop(clean, 0.5, 1),
        planted.one_positive(clean, 1),
        planted.strip_labels(clean, 0.3, 1),
    )
    assert keys(dropped) < true
    assert len(keys(dropped)) == len(true) // 2
    assert keys(single) < true
    assert [query for query, _ in sorted(keys(single))] == list(range(QUERIES))
    known = {label for _, label in true}
    gone = known - {label for _, label in keys(stripped)}
    assert len(gone) == round(0.3 * len(known))
    assert keys(stripped) == {pair for pair in true if pair[1] not in gone}
    assert all(same_elsewhere(data, clean) for data in (dropped, single, stripped))


def test_an_oracle_leaves_out_what_is_missing(planted: Any, clean: Dataset) -> None:
    dropped = planted.drop(clean, 0.5, 1)
    data = planted.with_left_out(dropped, planted.removed(clean, dropped))
    assert keys(data) == keys(dropped)
    left_out = set(map(tuple, data.filter("train").tolist()))
    assert left_out == (keys(clean) - keys(dropped)) | {(0, 1), (1, 0)}
    targets = data.targets("train")
    assert targets.excluded.nnz == len(left_out)
    assert targets.truth.nnz == len(keys(dropped) - left_out)


def test_the_best_labels_of_a_run_are_judged_by_who_knows(planted: Any, clean: Dataset) -> None:
    """Each query's best are its own labels and, before and behind them, some that it has not."""
    dropped, true = planted.drop(clean, 0.5, 1), keys(clean)
    order = np.argsort(
        [[-((query, label) in true) for label in range(LABELS)] for query in range(QUERIES)], kind="stable"
    )
    ranked: npt.NDArray[np.int64] = np.asarray(order)
    best = planted.not_given(dropped, ranked, 6)
    assert all((query, label) not in keys(dropped) for query, row in enumerate(best.tolist()) for label in row)
    shown = {(query, label) for query, row in enumerate(best.tolist()) for label in row} - {(0, 1), (1, 0)}
    data = planted.with_rejected(clean, dropped, best)
    rejected = set(zip(*map(np.ndarray.tolist, data.split("train").rejected.nonzero()), strict=True))
    assert keys(data) == keys(dropped)
    assert rejected == shown - true
    mistaken = planted.with_rejected(clean, dropped, best, wrong=0.2, seed=1)
    rejected = set(zip(*map(np.ndarray.tolist, mistaken.split("train").rejected.nonzero()), strict=True))
    assert abs(len(rejected & true) / len(rejected) - 0.2) < 0.01
    assert rejected <= shown
    assert planted.not_given(dropped, ranked[:, :1], 3)[:, 1:].max() == -1


def test_given_pairs_beyond_a_rank_are_those_that_a_run_does_not_name(planted: Any, clean: Dataset) -> None:
    ranked = np.tile(np.arange(LABELS), (QUERIES, 1))
    beyond = planted.beyond(clean, ranked[:, :10])
    pairs = set(zip((beyond // LABELS).tolist(), (beyond % LABELS).tolist(), strict=True))
    assert pairs == {pair for pair in keys(clean) if pair[1] >= 10}


@pytest.mark.parametrize("random", [True, False])
def test_bags_hold_every_query_once(planted: Any, clean: Dataset, random: bool) -> None:
    bags = planted.bag_rows(clean, 7, seed=2, random=random)
    assert sorted(np.concatenate(bags).tolist()) == list(range(QUERIES))
    assert {len(rows) for rows in bags[:-1]} == {7}
    shared = np.mean([len({query % 4 for query in rows.tolist()}) for rows in bags])
    assert shared > 2.5 if random else shared < 1.5


def test_shares_of_bags_are_relevances(planted: Any, clean: Dataset) -> None:
    bags = planted.bag_rows(clean, 8, seed=2)
    data, true = planted.bag_shares(clean, bags), clean.split("train").positives.toarray() > 0
    given = data.split("train").positives.toarray()
    for rows in bags:
        np.testing.assert_allclose(given[rows], np.tile(true[rows].mean(axis=0), (len(rows), 1)), rtol=1e-6)
    alone = planted.bag_shares(clean, planted.bag_rows(clean, 1, seed=2))
    assert keys(alone) == keys(clean)
    assert (alone.split("train").positives.data == 1).all()


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import planted_evidence

    return planted_evidence


def nothing_is_labelled(data: Dataset, clean: Dataset) -> bool:
    labelled = data.labelled("train")
    return labelled is not None and not labelled.any() and not keys(data) and same_elsewhere(data, clean)


def test_counts_of_bags_are_those_of_their_queries(planted: Any, evidence: Any, clean: Dataset) -> None:
    rows = planted.bag_rows(clean, 8, seed=2)
    data, true = evidence.in_bags(clean, rows), clean.split("train").positives.toarray() > 0
    assert nothing_is_labelled(data, clean)
    bags = data.label_bags("train")
    counts = np.zeros((len(rows), LABELS))
    counts[np.repeat(np.arange(len(rows)), np.diff(bags.label_indptr)), bags.labels] = bags.counts
    members = np.split(bags.queries, bags.query_indptr[1:-1])
    assert [queries.tolist() for queries in members] == [queries.tolist() for queries in rows]
    np.testing.assert_array_equal(counts, [true[queries].sum(axis=0) for queries in rows])


def test_a_set_hides_one_true_label_among_others_of_its_frequency(
    evidence: Any, clean: Dataset, monkeypatch: Any
) -> None:
    monkeypatch.setattr(evidence, "DECOY_PLACES", 10)
    data, true = evidence.hidden_in_sets(clean, 4, seed=1), keys(clean)
    assert nothing_is_labelled(data, clean)
    sets = data.candidate_sets("train")
    labels = np.split(sets.labels, sets.indptr[1:-1])
    pairs = [(query, label) for query, row in zip(sets.queries.tolist(), labels, strict=True) for label in row.tolist()]
    assert len(sets) == len(true)
    assert len(pairs) == len(set(pairs)) > 4.5 * len(true)
    assert set(pairs) > true
    counts = np.asarray(clean.split("train").positives.getnnz(axis=0))
    ordered = np.sort(counts)
    for query, row in zip(sets.queries.tolist(), labels, strict=True):
        hidden = [label for label in row.tolist() if (query, label) in true]
        assert len(hidden) == 1
        lowest = ordered[max(np.searchsorted(ordered, counts[hidden[0]]) - 10, 0)]
        highest = ordered[min(np.searchsorted(ordered, counts[hidden[0]], "right") + 9, LABELS - 1)]
        assert lowest <= counts[row].min()
        assert counts[row].max() <= highest
    assert (sets.least == 1).all()
    assert (sets.most == 1).all()
    assert keys(evidence.all_of_sets(data)) == set(pairs)


def test_sources_are_as_often_right_as_they_are_called(evidence: Any, clean: Dataset) -> None:
    data, true = evidence.voted(clean, (0.9, 0.6), seed=1), keys(clean)
    assert nothing_is_labelled(data, clean)
    votes = data.votes("train")
    pairs = list(zip(votes.queries.tolist(), votes.labels.tolist(), strict=True))
    is_true = np.array([pair in true for pair in pairs])
    assert votes.names == ("right 60%", "right 90%")
    for place, accuracy in enumerate((0.6, 0.9)):
        of_source = votes.sources == place
        assert of_source.sum() == len(true)  # a half of the true pairs and as many wrong ones
        assert 0.4 < is_true[of_source].mean() < 0.6
        assert abs(((votes.values[of_source] > 0) == is_true[of_source]).mean() - accuracy) < 0.05
    best = evidence.by_majority(data, ["right 90%"])
    assert keys(best) == {pair for pair, source, value in zip(pairs, votes.sources, votes.values, strict=True)
                          if source == 1 and value > 0}  # fmt: skip
    sums: dict[tuple[int, int], float] = {}
    for pair, value in zip(pairs, votes.values.tolist(), strict=True):
        sums[pair] = sums.get(pair, 0) + value
    assert keys(evidence.by_majority(data)) == {pair for pair, value in sums.items() if value > 0}
    assert best.votes("train") is None
    ordered = sorted(sums)
    sure = evidence.log_losses(clean, data, np.array([float(pair in true) for pair in ordered]))
    unsure = evidence.log_losses(clean, data, np.full(len(ordered), 0.5))
    assert sure[0] == pytest.approx(0, abs=1e-3)
    assert unsure[0] == pytest.approx(np.log(2))
    assert 0.3 < sure[1] == unsure[1] < np.log(2)


def test_a_reviewer_is_wrong_as_often_as_was_asked_for(planted: Any, evidence: Any, clean: Dataset) -> None:
    dropped, true = planted.drop(clean, 0.5, 1), keys(clean)
    best = planted.not_given(dropped, np.tile(np.arange(LABELS), (QUERIES, 1)), 10)
    for wrong in (0.0, 0.2):
        data = evidence.with_verdicts(clean, dropped, best, wrong, seed=1)
        assert keys(data) == keys(dropped)
        votes = data.votes("train")
        pairs = list(zip(votes.queries.tolist(), votes.labels.tolist(), strict=True))
        assert set(pairs) == {(query, label) for query, row in enumerate(best.tolist()) for label in row}
        mistaken = np.mean([(value > 0) != (pair in true) for pair, value in zip(pairs, votes.values, strict=True)])
        assert abs(mistaken - wrong) < 0.03


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import imperfect_table

    return imperfect_table


def test_what_is_won_back_and_how_sure_that_is(table: Any) -> None:
    generator = np.random.default_rng(0)
    plain = generator.normal(60, 20, (3, 800))
    method = plain + 2 + generator.normal(0, 5, plain.shape)  # paired: the queries' own spread cancels
    gain = table.gain_of(method, plain, plain + 8, samples=500)
    assert gain.mean == pytest.approx((method - plain).mean())
    assert gain.won_back == pytest.approx(gain.mean / 8)
    assert 1.2 < gain.low < 2 < gain.high < 2.8
    nothing = table.gain_of(plain, plain, plain, samples=100)
    assert (nothing.mean, nothing.low, nothing.high) == (0, 0, 0)
    assert np.isnan(nothing.won_back)


def test_seeds_that_differ_widen_the_interval(table: Any) -> None:
    plain = np.zeros((3, 500))
    steady, wavering = plain + 1, plain + np.array([[-3.0], [1.0], [5.0]])
    narrow, wide = (table.gain_of(method, plain, plain + 2, samples=500) for method in (steady, wavering))
    assert (narrow.low, narrow.high) == (1, 1)
    assert wide.mean == pytest.approx(1)
    assert wide.low < -0.5
    assert wide.high > 2.5


def test_the_table_compares_the_seeds_that_all_have(table: Any) -> None:
    def values(mean: float) -> dict[str, npt.NDArray[np.float64]]:
        return {metric: np.full(50, mean) for metric in table.METRICS}

    measured = {
        "clean: plain": {0: values(70.0), 1: values(72.0)},
        "wrong 50%: plain": {0: values(60.0), 1: values(62.0), 2: values(10.0)},
        "wrong 50%: posterior": {0: values(65.0), 2: values(90.0)},
    }
    cells = {row[0]: row[1:] for row in table.rows_of(measured)}
    assert cells["clean: plain"][:2] == ["0, 1", "71.00"]
    assert cells["wrong 50%: plain"][:2] == ["0, 1, 2", "44.00"]
    assert cells["wrong 50%: posterior"][0] == "0, 2"
    assert cells["wrong 50%: posterior"][-1] == "+5.00 [+5.00, +5.00], 50%"
