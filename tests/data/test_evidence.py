"""Votes, candidate sets and bags of queries: what arrays hold, what is refused, and what is left when rows are taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import unlisted
from scipy.sparse import csr_matrix

from xmc.data.dataset import Dataset
from xmc.data.drawing import Splitting
from xmc.data.evidence import EVIDENCE, CandidateSets, LabelBags, Votes
from xmc.data.held_out import uses_of_queries
from xmc.data.split_files import split_data_set
from xmc.errors import DataError, InputError

QUERIES, LABELS = 12, 7


def random_votes(rng: np.random.Generator) -> dict[tuple[int, int, str], float]:
    """Value by query, label and source."""
    keys = rng.integers(0, [QUERIES, LABELS, 3], (60, 3)).tolist()
    return {(query, label, "abc"[source]): float(np.float32(rng.uniform(-1, 1))) for query, label, source in keys}


def votes_of(said: dict[tuple[int, int, str], float]) -> Votes:
    """From values by query, label and source."""
    queries, labels, sources = zip(*said, strict=True)
    return Votes.from_arrays(queries, labels, sources, list(said.values()))


def said_by(votes: Votes) -> dict[tuple[int, int, str], float]:
    """The other way round."""
    names = [votes.names[source] for source in votes.sources]
    return dict(zip(zip(votes.queries.tolist(), votes.labels.tolist(), names, strict=True), votes.values, strict=True))


def random_truth(rng: np.random.Generator) -> np.ndarray:
    """Bool [QUERIES, LABELS]."""
    return rng.random((QUERIES, LABELS)) < 0.3


def random_sets(rng: np.random.Generator, truth: np.ndarray) -> CandidateSets:
    """Sets of which the truth is within the numbers, but not always by a margin."""
    rows = []
    for query in rng.integers(0, QUERIES, 40):
        labels = rng.permutation(LABELS)[: rng.integers(1, LABELS + 1)]
        true = int(truth[query, labels].sum())
        rows.append((int(query), labels.tolist(), max(0, true - int(rng.integers(0, 2))), min(len(labels), true + 1)))
    return CandidateSets.from_lists(*zip(*rows, strict=True))


def random_bags(rng: np.random.Generator, truth: np.ndarray) -> LabelBags:
    """Bags of two to four queries, with true counts of some labels."""
    order, rows = rng.permutation(QUERIES), []
    for start in range(0, QUERIES, 3):
        queries, labels = order[start : start + 3], rng.permutation(LABELS)[:4]
        rows.append((queries.tolist(), labels.tolist(), truth[np.ix_(queries, labels)].sum(axis=0).tolist()))
    return LabelBags.from_lists(*zip(*rows, strict=True))


@pytest.mark.parametrize("seed", range(10))
def test_votes_move_with_their_queries_and_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    said = random_votes(rng)
    votes = votes_of(said)
    assert said_by(votes) == said
    keys = list(zip(votes.queries, votes.labels, votes.sources, strict=True))
    assert keys == sorted(keys)
    rows = rng.permutation(QUERIES)[:7]
    wanted = {(list(rows).index(q), label, source): v for (q, label, source), v in said.items() if q in rows}
    assert said_by(votes.take(rows)) == wanted
    labels = rng.integers(-1, 4, LABELS)
    joined: dict[tuple[int, int, str], float] = {}
    for (query, label, source), value in said.items():
        if labels[label] >= 0:
            key = (query, int(labels[label]), source)
            joined[key] = max(value, joined.get(key, -1))
    assert said_by(votes.renumbered(np.arange(QUERIES), labels)) == joined
    assert said_by(votes.of_source("b")) == {key: value for key, value in said.items() if key[2] == "b"}
    assert votes.of_source("b").names == votes.names
    assert votes.take(np.array([3], np.int64)).names == ("a", "b", "c")


def number_true(truth: np.ndarray, labels: np.ndarray, moved: np.ndarray) -> int:
    """Number of new labels that at least one true label of some becomes. truth: bool [LABELS]. moved: the new row of each."""
    return len({moved[label] for label in labels if truth[label]} - {-1})


@pytest.mark.parametrize("seed", range(10))
def test_what_is_left_of_sets_and_bags_is_true_still(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_truth(rng)
    sets, bags = random_sets(rng, truth), random_bags(rng, truth)
    queries, labels = rng.permutation(QUERIES) - 4, rng.integers(-1, 4, LABELS)
    queries[queries < 0] = -1
    for place in range(len(sets)):
        one = CandidateSets.from_sound(sets.table()[place : place + 1])
        left = one.renumbered(queries, labels)
        if len(left):
            assert left.queries.tolist() == [queries[one.queries[0]]]
            assert left.labels.tolist() == sorted(set(labels[one.labels].tolist()) - {-1})
            assert left.least[0] <= number_true(truth[one.queries[0]], one.labels, labels) <= left.most[0]
            assert len(one.labels) == len(left.labels) or left.least[0] > 0 or left.most[0] < len(left.labels)
    for place in range(len(bags)):
        one = LabelBags.from_sound(bags.table()[place : place + 1])
        kept = one.renumbered(queries, labels)
        moved = labels[one.labels].tolist()
        if len(kept):
            assert kept.queries.tolist() == sorted(queries[one.queries].tolist())
            assert kept.labels.tolist() == sorted(label for label in moved if label >= 0 and moved.count(label) == 1)
            before = one.labels[[moved.index(label) for label in kept.labels]]
            assert kept.counts.tolist() == truth[np.ix_(one.queries, before)].sum(axis=0).tolist()
    joined = sets.renumbered(queries, labels)
    assert joined.queries.tolist() == sorted(joined.queries)
    whole = [
        bool((queries[bags.queries[start:stop]] >= 0).all())
        for start, stop in zip(bags.query_indptr[:-1], bags.query_indptr[1:], strict=True)
    ]
    same = np.arange(LABELS)
    assert len(bags.renumbered(queries, same)) == sum(whole)
    assert bags.renumbered(queries, same).table() == bags.renumbered(queries).table()
    assert len(sets.renumbered(queries, same)) == (queries[sets.queries] >= 0).sum()
    taken = rng.permutation(QUERIES)[:8]
    some = [
        set(bags.queries[a:b]) & set(taken) for a, b in zip(bags.query_indptr[:-1], bags.query_indptr[1:], strict=True)
    ]
    assert bags.number_cut(taken) == sum(0 < len(members) < 3 for members in some)
    assert len(bags.take(taken)) == sum(len(members) == 3 for members in some)


def test_a_set_says_less_without_some_of_its_labels() -> None:
    sets = CandidateSets.from_lists([0, 0, 1, 1], [[0, 1, 2], [3, 4], [0, 3], [0, 1]], [2, 1, 1, 2], [3, 1, 1, 2])
    gone = sets.renumbered(np.arange(2), np.array([0, 1, -1, -1, -1]))
    assert gone.queries.tolist() == [0, 1]  # nothing is left of the second, and of the third that label 0 may be true
    assert (gone.least.tolist(), gone.most.tolist()) == ([1, 2], [2, 2])
    one = sets.renumbered(np.arange(2), np.array([0, 0, 1, 2, 3]))
    assert [one.least.tolist(), one.most.tolist()] == [[1, 1, 1, 1], [2, 1, 1, 1]]


BAD = {
    "query 12 is outside of the 12 queries": ("votes", [(12, 0, "a", 1.0)]),
    "label -1 is outside of the 7 labels": ("votes", [(0, -1, "a", 1.0)]),
    "value nan is not in": ("votes", [(0, 0, "a", float("nan"))]),
    "value 1.5 is not in": ("votes", [(0, 0, "a", 1.5)]),
    "source is null": ("votes", [(0, 0, None, 1.0)]),
    "source has no name": ("votes", [(0, 0, "", 1.0)]),
    "votes a second time on query 0 and label 1": ("votes", [(0, 1, "a", 1.0), (0, 1, "a", -1.0)]),
    "label 7 is outside of the 7 labels": ("sets", [(0, [7], 1, 1)]),
    "it has no label": ("sets", [(0, [], 0, 0)]),
    "null in its list": ("sets", [(0, [1, None], 0, 1)]),
    "label 2 is there twice": ("sets", [(0, [2, 1, 2], 1, 1)]),
    "between 2 and 1 of its 2 labels": ("sets", [(0, [2, 1], 2, 1)]),
    "between 0 and 3 of its 2 labels": ("sets", [(0, [2, 1], 0, 3)]),
    "least is null": ("sets", [(0, [2, 1], None, 1)]),
    "query 5 is there twice": ("bags", [([5, 5], [1], [1.0])]),
    "the count 3 is not a number from 0 to its 2 queries": ("bags", [([4, 5], [1], [3.0])]),
    "the count nan is not": ("bags", [([4, 5], [1], [float("nan")])]),
    "it has 1 labels and 2 counts": ("bags", [([4, 5], [1], [1.0, 1.0])]),
    "label 1 of query 4 is counted in an earlier bag": ("bags", [([4, 5], [1], [1.0]), ([3, 4], [0, 1], [1.0, 0.0])]),
    "query 13 is outside": ("bags", [([4, 13], [1], [1.0])]),
}


@pytest.mark.parametrize("sentence", BAD)
def test_what_says_nothing_sound_is_refused_by_its_row(sentence: str, tmp_path: Path) -> None:
    kind, rows = BAD[sentence]
    schema = EVIDENCE[kind].schema
    sound = {"votes": (11, 6, "z", 0.0), "sets": (11, [6], 0, 1), "bags": ([10, 11], [6], [2.0])}[kind]
    table = pa.table(dict(zip(schema.names, zip(sound, *rows, strict=True), strict=True)), schema=schema)
    last = f"row {len(rows)}: .*{sentence}"
    with pytest.raises(DataError, match=last):
        EVIDENCE[kind].from_table(table, QUERIES, LABELS, "here")
    plain_data().save(tmp_path / "data")
    pq.write_table(table, tmp_path / "data" / f"{kind}-train.parquet")
    unlisted(tmp_path / "data")
    with pytest.raises(DataError, match=f"{kind}-train.parquet, {last}"):
        Dataset.load(tmp_path / "data").evidence("train")


def test_two_bags_may_share_a_query_whose_labels_they_count_apart() -> None:
    bags = LabelBags.from_lists([[0, 1], [1, 2]], [[3], [4, 5]], [[1], [1, 2]])
    assert len(bags) == 2


def test_a_row_is_taken_once() -> None:
    with pytest.raises(InputError, match="twice"):
        votes_of({(0, 1, "a"): 1.0}).take(np.array([0, 0]))
    with pytest.raises(InputError, match="no source 'b', only a"):
        votes_of({(0, 1, "a"): 1.0}).of_source("b")
    with pytest.raises(InputError, match="of one length"):
        Votes.from_arrays([0], [1, 2], ["a"], [1.0])


def plain_data() -> Dataset:
    """QUERIES queries with a label each, the last two without."""
    lists = [[row % LABELS] for row in range(QUERIES - 2)] + [[], []]
    texts = [f"text {row}" for row in range(QUERIES)]
    return Dataset.from_lists("plain", [f"label {row}" for row in range(LABELS)], {"train": (texts, lists)})


def rich_data(rng: np.random.Generator) -> Dataset:
    """The same with evidence of each kind, whose last two queries are not labelled."""
    truth = random_truth(rng)
    given = {"votes": votes_of(random_votes(rng)), "candidate_sets": random_sets(rng, truth)}
    labelled = np.arange(QUERIES) < QUERIES - 2
    return plain_data().with_evidence("train", **given, label_bags=random_bags(rng, truth), labelled=labelled)


def test_evidence_is_kept_on_disk_and_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    plain, data = plain_data(), rich_data(np.random.default_rng(0))
    data.save(tmp_path / "data")
    described = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert described["format"] == 3
    assert {f"{kind}-train.parquet" for kind in EVIDENCE} < set(described["files"])
    again = Dataset.load(tmp_path / "data")
    assert {name: found.table() for name, found in again.evidence().items()} == {
        name: found.table() for name, found in data.evidence().items()
    }
    assert again.labelled() is not None
    assert again.labelled().tolist() == [True] * 10 + [False] * 2
    assert again.fingerprint == data.fingerprint != plain.fingerprint
    unread = Dataset({key: v for key, v in described.items() if key != "fingerprint"}, tmp_path / "data", {})
    assert unread.fingerprint == data.fingerprint
    data.save(tmp_path / "data", overwrite=True)
    nothing = data.votes().where(np.zeros(len(data.votes()), bool))
    without = data.with_evidence("train", votes=nothing)
    assert without.votes() is None
    assert without.fingerprint != data.fingerprint
    assert plain.with_evidence("train", votes=nothing, labelled=[True] * QUERIES).fingerprint == plain.fingerprint
    one = data.votes().where(np.arange(len(data.votes())) > 0)
    assert data.with_evidence("train", votes=one).fingerprint not in (data.fingerprint, without.fingerprint)


def test_a_data_set_without_evidence_is_of_the_format_and_fingerprint_it_had(tmp_path: Path) -> None:
    plain = plain_data()
    plain.save(tmp_path / "plain")
    described = json.loads((tmp_path / "plain" / "dataset.json").read_text())
    assert described["format"] == 1
    assert described["fingerprint"] == "a75854384d083f68f3ab214e59c44947427bc1c068c849f3bed02674acd09675"
    assert (plain.evidence(), plain.labelled()) == ({}, None)


def test_labels_of_a_split_are_replaced() -> None:
    data = rich_data(np.random.default_rng(1))
    positives = csr_matrix((np.full(2, 0.5, np.float32), ([0, 3], [2, 1])), shape=(QUERIES, LABELS))
    rejected = csr_matrix((np.ones(1, bool), ([0], [1])), shape=(QUERIES, LABELS))
    other = data.with_evidence("train", positives=positives, rejected=rejected)
    assert (other.split("train").positives != positives).nnz == 0
    assert (other.split("train").rejected != rejected).nnz == 0
    assert other.votes().table() == data.votes().table()
    assert other.labelled().tolist() == data.labelled().tolist()
    with pytest.raises(DataError, match="row 0: the query has labels"):
        other.with_evidence("train", labelled=np.arange(QUERIES) > 2)
    with pytest.raises(InputError, match="12 queries and 7 labels, but is of"):
        data.with_evidence("train", positives=positives[:5])
    with pytest.raises(InputError, match="rejected must be a sparse matrix, but is of type ndarray"):
        data.with_evidence("train", rejected=np.zeros((12, 7)))  # type: ignore[arg-type]
    for excluded in (np.array([[0.5, 1.0]]), np.array([0, 1, 2]), np.array([[-1, 0]])):
        with pytest.raises(InputError, match="filter of the split 'train'"):
            data.with_evidence("train", excluded=excluded)
    with pytest.raises(InputError, match="votes of the split 'train' must be of the type Votes"):
        data.with_evidence("train", votes=data.label_bags())
    with pytest.raises(DataError, match="no split 'dev'"):
        data.with_evidence("dev", labelled=[True])
    with pytest.raises(InputError, match="values for 12 queries"):
        data.with_evidence("train", labelled=[True])
    with pytest.raises(InputError, match="True or False, but at 1 is 1"):
        data.with_evidence("train", labelled=[True, 1] * 6)
    with pytest.raises(DataError, match="query 12 is outside"):
        data.with_evidence("train", votes=votes_of({(12, 0, "a"): 1.0}))


def test_evidence_goes_with_its_queries_into_new_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = rich_data(np.random.default_rng(2))
    data.save(tmp_path / "data")
    splitting = Splitting(test=0.3, seed=1)
    in_memory = data.with_splits(test=0.3, seed=1)
    done = split_data_set(tmp_path / "data", tmp_path / "split", splitting)
    assert done.dataset.fingerprint == in_memory.fingerprint
    assert done.dataset.properties["format"] == 3
    rows = done.drawn.rows
    assert not set(rows["test"]) & {QUERIES - 2, QUERIES - 1}
    for split in ("train", "test"):
        for name, given in data.evidence().items():
            found = done.dataset.evidence(split).get(name)
            assert (EVIDENCE[name].schema.empty_table() if found is None else found.table()) == given.take(
                rows[split]
            ).table()
    lost = len(data.label_bags()) - sum(len(data.label_bags().take(taken)) for taken in rows.values())
    assert lost
    assert caplog.messages.count(f"{lost} bags are left out: their queries are not all in one split now") == 2


def test_queries_that_are_not_labelled_are_for_training() -> None:
    labelled = np.arange(100) % 4 > 0
    uses = uses_of_queries(100, 0.2, 0.4, 0, labelled)
    assert (len(uses.validation), len(uses.calibration)) == (9, 30)
    assert labelled[uses.validation].all()
    assert labelled[uses.calibration].all()
    every = np.concatenate([uses.training, uses.validation, uses.calibration])
    assert sorted(every.tolist()) == list(range(100))
    assert uses.training.tolist() == sorted(uses.training)
    everything, plain = uses_of_queries(100, 0.2, 0.4, 0, np.ones(100, bool)), uses_of_queries(100, 0.2, 0.4, 0)
    assert all((vars(everything)[use] == rows).all() for use, rows in vars(plain).items())
    assert not len(uses_of_queries(5, 0.2, 0.4, 0, np.zeros(5, bool)).validation)


def test_targets_know_which_queries_are_labelled() -> None:
    data = rich_data(np.random.default_rng(3))
    targets = data.targets("train")
    assert targets.labelled is not None
    assert targets.take(np.array([11, 0])).labelled.tolist() == [False, True]
    assert plain_data().targets("train").take(np.array([1])).labelled is None
