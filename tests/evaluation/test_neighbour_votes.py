"""Votes for the labels of nearest training queries, and the commands that write votes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import xmc as command
from scipy.sparse import csr_matrix
from worlds import colours, tiny_config

import xmc
from xmc.data.dataset import Dataset
from xmc.errors import DataError, InputError
from xmc.evaluation.neighbour_votes import neighbour_votes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("neighbours") / "run"
    xmc.train(colours(), tiny_config(), out)
    return out


def by_hand(data: Dataset, views: list[np.ndarray], count: int, threshold: float) -> np.ndarray:
    """Dense [N, L]: the same, one query after the other."""
    truth = data.split("train").positives.toarray() > 0
    said = np.zeros(truth.shape)
    for query in range(len(truth)):
        scores = np.zeros(len(truth))
        for cosines in views:
            others = [row for row in np.argsort(-cosines[query], kind="stable") if row != query]
            for rank, row in enumerate(others[: max(30, count)]):
                if cosines[query, row] >= threshold:
                    scores[row] += 1 / (60 + rank + 1)
        best = np.argsort(-scores, kind="stable")[:count]
        counted = truth[best[scores[best] > 0]].sum(0)
        said[query] = counted / max(counted.sum(), 1)
    return said


def test_votes_are_those_of_a_count_by_hand(run: Path, tmp_path: Path) -> None:
    data = colours()
    xmc.train(data, tiny_config(epochs=1, seed=3), tmp_path / "other")
    retrievers = [xmc.Retriever.load(run), xmc.Retriever.load(tmp_path / "other")]
    texts = data.split("train").texts.to_pylist()
    embedded = [retriever.embed_queries(texts) for retriever in retrievers]
    views = [vectors @ vectors.T for vectors in embedded]
    found = neighbour_votes(retrievers, data, "near", neighbours=4, threshold=0.3)
    assert (found.neighbours, found.threshold) == (4, 0.3)
    votes = found.votes
    expected = by_hand(data, views, 4, 0.3)
    said = csr_matrix((votes.values, (votes.queries, votes.labels)), expected.shape).toarray()
    different = np.abs(said - expected).max(1) > 1e-5
    assert different.mean() < 0.02  # where cosines tie
    assert votes.names == ("near",)
    assert (votes.values > 0).all()


def test_what_is_chosen_gives_the_same_votes_when_it_is_given(run: Path, tmp_path: Path) -> None:
    data = colours()
    xmc.train(data, tiny_config(epochs=1, seed=3), tmp_path / "other")
    retrievers = [xmc.Retriever.load(run), xmc.Retriever.load(tmp_path / "other")]
    chosen = neighbour_votes(retrievers, data, threshold=0.0)
    given = neighbour_votes(retrievers, data, neighbours=chosen.neighbours, threshold=0.0)
    assert given.loss == chosen.loss
    assert given.votes.table().equals(chosen.votes.table())


def test_what_is_chosen_is_best_on_given_pairs(run: Path) -> None:
    data, retriever = colours(), xmc.Retriever.load(run)
    chosen = neighbour_votes([retriever], data)
    truth = data.split("train").positives
    others = [neighbour_votes([retriever], data, neighbours=count, threshold=0.0).loss for count in (5, 30)]
    assert chosen.loss <= min(others) + 0.01
    votes = chosen.votes
    said = csr_matrix((votes.values, (votes.queries, votes.labels)), truth.shape).toarray()
    assert said[truth.toarray() > 0].mean() > 5 * said[truth.toarray() == 0].mean()


def test_unlabelled_queries_get_votes_and_give_none(run: Path) -> None:
    data = colours()
    positives = data.split("train").positives.copy()
    labelled = np.arange(400) >= 200
    positives.data[: positives.indptr[200]] = 0
    positives.eliminate_zeros()
    half = data.with_evidence("train", positives=positives, labelled=labelled)
    votes = neighbour_votes([xmc.Retriever.load(run)], half, neighbours=5, threshold=0.0).votes
    assert len(np.unique(votes.queries[votes.queries < 200])) > 190
    nothing = half.with_evidence("train", positives=csr_matrix(positives.shape, dtype=np.float32))
    with pytest.raises(DataError, match="0 labelled training queries"):
        neighbour_votes([xmc.Retriever.load(run)], nothing)


def test_numbers_out_of_range_are_refused(run: Path) -> None:
    retriever = xmc.Retriever.load(run)
    with pytest.raises(InputError, match="at least one run"):
        neighbour_votes([], colours())
    with pytest.raises(InputError, match=r"a cosine in \[0, 1\), but is 1.5"):
        neighbour_votes([retriever], colours(), threshold=1.5)
    with pytest.raises(InputError, match="neighbours must be at least 1"):
        neighbour_votes([retriever], colours(), neighbours=0)


@pytest.mark.slow
def test_commands_add_votes_to_a_data_set(run: Path, tmp_path: Path) -> None:
    colours().save(tmp_path / "data")
    done = command("votes", "names", tmp_path / "data", "--out", tmp_path / "named", "--source", "rule")
    assert done.returncode == 0, done.stderr
    assert "votes of rule on 400 of 400 training queries" in done.stdout
    assert "100.0% of these" in done.stdout
    views, out = ("--view", run, "--neighbours", 5), tmp_path / "both"
    done = command("votes", "neighbours", run, tmp_path / "named", *views, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "5 neighbours of a cosine of at least" in done.stdout
    votes = Dataset.load(out).votes("train")
    assert votes is not None
    assert votes.names == ("neighbours", "rule")
    done = command("votes", "names", tmp_path / "both", "--out", tmp_path / "x", "--source", "rule")
    assert done.returncode == 2
    assert "has votes of a source 'rule' already; name another with --source" in done.stderr
    assert not (tmp_path / "x").exists()
