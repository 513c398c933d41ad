"""The estimator of targets in real runs: what it decides, and that it leaves alone what it has nothing to say of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from worlds import colours, logged_steps, tiny_config, wordnet_part

import xmc
from xmc.config import SupervisionConfig
from xmc.data.dataset import Dataset
from xmc.data.evidence import CandidateSets, LabelBags, Votes
from xmc.data.targets import Targets
from xmc.errors import ConfigError
from xmc.training.distributed import World
from xmc.training.negatives.shortlist import Shortlist
from xmc.training.supervision.decisions import Beliefs, decided
from xmc.training.supervision.evidence import PairEvidence
from xmc.training.supervision.pair_entries import PairEntries
from xmc.training.trainer import prepare_run

POSTERIOR: dict[str, Any] = {"supervision.estimator": "posterior", "supervision.first_epoch": 1}


def lists_of(data: Dataset) -> list[list[int]]:
    positives = data.split("train").positives
    return [row.tolist() for row in np.split(positives.indices, positives.indptr[1:-1])]


def nothing_given(data: Dataset, **evidence: Any) -> Dataset:
    """The same queries without a label, but with evidence."""
    split = data.split("train")
    none = csr_matrix(split.positives.shape, dtype=np.float32)
    return data.with_evidence("train", positives=none, labelled=np.zeros(len(split), bool), **evidence)


def in_bags(data: Dataset, size: int) -> Dataset:
    """Counts of labels in bags of neighbouring rows, and no label of any query."""
    lists = lists_of(data)
    bags = [list(range(start, min(start + size, len(lists)))) for start in range(0, len(lists), size)]
    counted = [np.unique(np.concatenate([lists[row] for row in bag]), return_counts=True) for bag in bags]
    labels, counts = [c[0].tolist() for c in counted], [c[1].tolist() for c in counted]
    return nothing_given(data, label_bags=LabelBags.from_lists(bags, labels, counts))


def p_at_1(data: Dataset, out: Path, clean: Dataset, **changes: Any) -> float:
    xmc.train(data, tiny_config(**changes), out)
    return xmc.evaluate(xmc.Retriever.load(out), clean)["P@1"]


def test_bags_of_one_are_plain_training_bit_for_bit(tmp_path: Path) -> None:
    data = colours()
    xmc.train(data, tiny_config(), tmp_path / "plain")
    xmc.train(in_bags(data, 1), tiny_config(**POSTERIOR), tmp_path / "bags")
    plain, bags = (xmc.Retriever.load(tmp_path / name).embeddings for name in ("plain", "bags"))
    assert np.array_equal(plain, bags)


def test_labels_are_learned_from_counts_and_from_sets(tmp_path: Path) -> None:
    data = colours()
    assert p_at_1(in_bags(data, 4), tmp_path / "bags", data, epochs=8, **POSTERIOR) > 90
    rng = np.random.default_rng(0)
    lists = lists_of(data)
    hidden = [sorted({*row, *rng.choice(12, 3, replace=False).tolist()}) for row in lists]
    numbers = [len(row) for row in lists]
    sets = CandidateSets.from_lists(range(len(lists)), hidden, numbers, numbers)
    assert p_at_1(nothing_given(data, candidate_sets=sets), tmp_path / "sets", data, epochs=8, **POSTERIOR) > 90


@pytest.mark.slow
def test_wrong_pairs_are_found_and_left_out(tmp_path: Path) -> None:
    """A third of the given pairs are wrong; the log says about how many, and most that are left out are wrong."""
    data = wordnet_part(2000)
    rng, lists = np.random.default_rng(0), lists_of(data)
    every = np.concatenate(lists)
    wrong = [sorted({*rng.choice(every, 3).tolist()} - set(row)) if rng.random() < 0.5 else [] for row in lists]
    both = [sorted({*row, *more}) for row, more in zip(lists, wrong, strict=True)]
    planted = data.with_evidence("train", positives=matrix(both, data))
    changes = {**POSTERIOR, "supervision.wrong": "estimate", "supervision.held_out": 0.2, "epochs": 3}
    changes |= {"encoder.dimension": 64, "encoder.table_rows": 16384, "encoder.weight_slots": 16384}
    run = prepare_run(planted, tiny_config(**changes), torch.device("cpu"), World())
    xmc.train(planted, tiny_config(**changes), tmp_path / "run")
    said = [step["supervision"] for step in logged_steps(tmp_path / "run") if "supervision" in step]
    assert len(said) == 1  # pairs that are only given are judged once
    share = sum(map(len, wrong)) / sum(map(len, both))
    assert said[0]["given"] == sum(map(len, both)) == int((run.data.known.given.pull > 0).sum())
    assert said[0]["wrong"] == pytest.approx(share, rel=0.5)


def matrix(lists: list[list[int]], data: Dataset) -> csr_matrix:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in lists])])
    columns = np.concatenate([np.array(row, int) for row in lists])
    return csr_matrix((np.ones(len(columns), np.float32), columns, indptr), shape=(len(lists), len(data.labels)))


def test_votes_are_learned_from_without_any_given_label(tmp_path: Path) -> None:
    data, rng = colours(), np.random.default_rng(0)
    lists, queries, labels, sources, values = lists_of(data), [], [], [], []
    for row, positives in enumerate(lists):
        for label in {*positives, *rng.choice(12, 3, replace=False).tolist()}:
            for name, accuracy in (("good", 0.95), ("fair", 0.75), ("random", 0.5)):
                said = (label in positives) == (rng.random() < accuracy)
                queries, labels = [*queries, row], [*labels, label]
                sources, values = [*sources, name], [*values, 1.0 if said else -1.0]
    voted = nothing_given(data, votes=Votes.from_arrays(queries, labels, sources, values))
    changes = {**POSTERIOR, "supervision.held_out": 0.2, "epochs": 6}
    assert p_at_1(voted, tmp_path / "run", data, **changes) > 90
    said = next(step["supervision"] for step in logged_steps(tmp_path / "run") if "supervision" in step)
    assert said["accuracies"] == {
        "fair": pytest.approx(0.75, abs=0.08),
        "good": pytest.approx(0.95, abs=0.08),
        "random": pytest.approx(0.5, abs=0.08),
    }


def test_decisions_by_hand() -> None:
    """Two queries, six labels. Given 0 and 1 of query 0, rejected 2, excluded 3; a vote on (1, 4)."""
    targets = Targets.from_pairs(
        csr_matrix(([2.0, 1.0], ([0, 0], [0, 1])), shape=(2, 6), dtype=np.float32),
        csr_matrix(([True], ([0], [2])), shape=(2, 6)),
        np.array([[0, 3]]),
    )
    given = PairEntries.of(targets, weighted=True, rejected_weight=3.0)
    evidence = PairEvidence.of(given, Votes.from_arrays([1], [4], ["rule"], [1.0]))
    beliefs = Beliefs(
        np.array([0.75, 0.25, 0.9, 0.9, 0.3], np.float16),
        np.array([[4, 5], [0, 1]], np.int32),
        np.array([[0.875, 0.25], [0.0625, 0.75]], np.float16),
    )
    options = SupervisionConfig(estimator="posterior", accept_new=0.6)
    most = np.array([9.0, 0, 9, 9, 9, 9])
    found = decided(evidence, beliefs, options, np.zeros(5, bool), most)
    entries = {
        (int(query), int(label)): (float(pull), float(push))
        for query, label, pull, push in zip(found.queries, found.labels, found.pull, found.push, strict=True)
    }
    assert entries == {
        (0, 0): (1.5, 0.0),  # by its relevance and its probability
        (0, 1): (0.0, 0.0),  # given, and hardly true
        (0, 2): (0.0, 3.0),  # rejected, whatever is believed
        (0, 3): (0.0, 0.0),
        (0, 4): (0.875, 0.0),
        (0, 5): (0.0, 0.75),  # doubtful
        (1, 1): (0.0, 0.25),  # probable, but the label lacks no pair
        (1, 4): (float(np.float16(0.3)), float(1 - np.float32(np.float16(0.3)))),  # voted on: both
    }
    unseen = np.array([True, False, False, False, False])
    assert not (decided(evidence, beliefs, options, unseen, most).pull[:1] > 0).any()
    options = SupervisionConfig(estimator="posterior", accept_new=0.6, cap=False)
    uncapped = decided(evidence, beliefs, options, np.zeros(5, bool), most)
    assert uncapped.pull[uncapped.keys == 7].tolist() == [0.75]


def test_doubtful_pairs_are_never_mined(tmp_path: Path) -> None:
    changes = {**POSTERIOR, "supervision.recorded": 0.5, "supervision.doubt": 0.02, "supervision.candidates": 4}
    changes |= {"negatives": "shortlist", "negatives.shortlist.window_end": 6, "negatives.shortlist.size": 3}
    run = prepare_run(colours(), tiny_config(**changes), torch.device("cpu"), World())
    run.begin()
    supervision = next(part for part in run.parts if part.name == "supervision")
    supervision.before_epoch(run, 1)
    entries = run.data.known.entries
    known = run.data.known.given.keys
    more = entries.keys[(entries.push == 0) & ~np.isin(entries.keys, known)]
    assert len(more) > 20
    shortlist = run.find(Shortlist)
    assert shortlist is not None
    shortlist.before_step(run, run.data.known.batch(0, np.arange(4)))
    mined = np.arange(len(shortlist.lists))[:, None] * 12 + shortlist.lists
    assert not np.isin(mined, more).any()
    assert not np.isin(mined, entries.keys[entries.push == 0]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"supervision.recorded": "estimate"}, "validation.split"),
        ({"supervision.recorded": 0.5, "supervision.positives": 3.0}, "leave out one"),
        ({"supervision.doubt": 0.6}, "above supervision.accept"),
        ({"supervision.accept_new": 0.05}, "above supervision.accept_new"),
        ({"data.bags.separator": "|"}, "judges whole texts"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        xmc.train(colours(), tiny_config(**POSTERIOR, **changes), tmp_path / "run")


def test_votes_of_sources_that_never_vote_against_a_pair(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half of the given pairs are missing, and a source names nine in ten of the true ones: it is believed, if told that."""
    clean = colours()
    lists, rng = lists_of(clean), np.random.default_rng(0)
    true = [(query, label) for query, labels in enumerate(lists) for label in labels]
    named = [pair for pair in true if rng.random() < 0.9]
    votes = Votes.from_arrays(*np.array(named).T, ["names"] * len(named), np.ones(len(named)))
    kept = [labels[: len(labels) // 2] for labels in lists]
    data = clean.with_evidence("train", positives=matrix(kept, clean), votes=votes)
    said = {}
    for recorded in (1.0, sum(map(len, kept)) / len(true)):
        caplog.clear()
        run = tmp_path / str(recorded)
        xmc.train(data, tiny_config(**POSTERIOR, **{"supervision.recorded": recorded}), run)
        said[recorded] = next(step["supervision"] for step in logged_steps(run) if step.get("supervision"))
        assert ("never vote against one (names)" in caplog.text) == (recorded == 1.0)
    told = said[recorded]
    assert told["accuracies"] == {}
    assert told["precisions"]["names"] == pytest.approx(1.0, abs=0.05)
    assert told["pulling"] - told["new"] >= 0.9 * len(named)
    assert said[1.0]["pulling"] == sum(map(len, kept))
