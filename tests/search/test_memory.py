"""Searches that remember judged queries: votes, and what becomes of them under changes, filters and in saved runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from worlds import colours, texts_of_split

import xmc
from xmc.batch import predict_files
from xmc.data.dataset import Dataset
from xmc.encoders.dual import DualEncoder
from xmc.encoders.precision import multiplies_bfloat16
from xmc.errors import InputError, StoreError
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.screening import lowered, screened_rows
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule

RULE = VotingRule(neighbours=5, temperature=0.1, weight=0.7, rarity=0.3, nothing=0.6)
TEXTS = ["red and blue", "pink", "black and white", "a grey thing", "cyan"]
ATOL = 1e-6
"""Scores are of order 1, in float32: some of its steps."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return colours()


def memory_of(retriever: xmc.Retriever, data: Dataset, index: str = "auto", name: str = "") -> QueryMemory:
    """The training queries, by the run's own encoder."""
    queries, truth = data.split("train"), data.targets("train").truth
    texts = queries.texts.to_pylist()
    ids = np.split(truth.indices.astype(np.int64), truth.indptr[1:-1])
    return QueryMemory.from_lists(retriever.embed_queries(texts), ids, texts, name, index)


@pytest.fixture
def retriever(run: Path, data: Dataset) -> xmc.Retriever:
    retriever = xmc.Retriever.load(run)
    retriever.use_memory(memory_of(retriever, data), RecallQueries(RULE))
    return retriever


def dense_sums(retriever: xmc.Retriever, texts: list[str], rule: VotingRule = RULE) -> np.ndarray:
    """Scores and votes of all labels for each query in float64, by the formula; columns in the order of the labels."""
    memory = retriever.memory
    assert memory is not None
    queries = retriever.embed_queries(texts).astype(np.float64)
    sums = queries @ retriever.embeddings.T.astype(np.float64)
    similarities = queries @ memory.held.embeddings.T.astype(np.float64)
    lists = memory.lists()
    for row, near in enumerate(similarities):
        nearest = np.argsort(-near, kind="stable")[: rule.neighbours]
        powers = np.exp(near[nearest] / rule.temperature)
        total = powers.sum() + (0 if rule.nothing is None else np.exp(rule.nothing / rule.temperature))
        for neighbour, power in zip(nearest, powers, strict=True):
            for label in lists[neighbour]:
                column = retriever.labels.rows_of_ids(np.array([label]))[0]
                if column >= 0:
                    votes = power / total * memory.propensities[label] ** -rule.rarity
                    sums[row, column] += rule.weight * votes
    return sums


@pytest.mark.parametrize("rule", [RULE, VotingRule(), VotingRule(neighbours=1000, weight=2.0)])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_answers_are_the_best_sums_of_score_and_votes(
    retriever: xmc.Retriever, data: Dataset, rule: VotingRule, k: int
) -> None:
    retriever.use_memory(retriever.memory, RecallQueries(rule))
    texts = texts_of_split(data)
    sums = dense_sums(retriever, texts, rule)
    ids, scores = retriever.search(texts, k)
    np.testing.assert_allclose(scores, -np.sort(-sums, axis=1)[:, :k], atol=ATOL * (1 + rule.weight))
    np.testing.assert_allclose(np.take_along_axis(sums, ids, 1), scores, atol=ATOL * (1 + rule.weight))


def test_answers_depend_neither_on_k_nor_on_other_queries(retriever: xmc.Retriever, data: Dataset) -> None:
    texts = texts_of_split(data)
    together, _ = retriever.predict(texts, 12)
    for k in (1, 4):
        assert (retriever.predict(texts, k)[0] == together[:, :k]).all()
    for row in range(0, len(texts), 7):
        assert retriever.predict([texts[row]], 12)[0][0].tolist() == together[row].tolist()


def test_filters_hold_for_what_is_voted_for(retriever: xmc.Retriever) -> None:
    sums = dense_sums(retriever, TEXTS)
    uids = np.array(retriever.labels.uids.to_pylist(), object)
    left_out = ["RED", "PINK", "WHITE"]
    kept = np.flatnonzero(~np.isin(uids, left_out))
    for options in ({"exclude": left_out}, {"include": uids[kept].tolist()}, {"exclude": [left_out] * len(TEXTS)}):
        found, scores = retriever.predict(TEXTS, 3, **options)  # type: ignore[arg-type]
        assert not np.isin(found, left_out).any()
        np.testing.assert_allclose(scores, -np.sort(-sums[:, kept], axis=1)[:, :3], atol=2 * ATOL)


def test_votes_follow_labels_through_changes(retriever: xmc.Retriever) -> None:
    retriever.remove_labels(["RED", "BLUE", "BLACK", "WHITE"])  # more than a quarter: rows are numbered anew
    assert len(retriever.labels.all_ids) == 8
    retriever.add_labels(["crimson"], ["RED"])  # another label by the same uid: the votes for the first one are gone
    retriever.update_labels(["rosy"], ["PINK"])
    sums = dense_sums(retriever, TEXTS)
    ids, scores = retriever.search(TEXTS, 9)
    np.testing.assert_allclose(scores, -np.sort(-sums, axis=1), atol=2 * ATOL)
    (pink,) = retriever.labels.rows(["PINK"])
    assert (retriever.labels.rows_of_ids(ids[1]) == pink).any()
    plain = retriever.embed_queries(TEXTS) @ retriever.embeddings.T
    assert sums[1, pink] > plain[1, pink] + 0.1


def test_remembering_joins_the_next_search(retriever: xmc.Retriever) -> None:
    before = retriever.labels
    retriever.add_labels(["a sea creature"], ["SQUID"])
    retriever.remember(["zyx wvu", "zyx wvu tsr"], [["SQUID"], ["SQUID", "RED", "RED"]])
    assert len(retriever.memory or ()) == len(before.memory or ()) + 2  # versions that were read stay as they are
    assert retriever.predict(["zyx wvu"], 1)[0].tolist() == [["SQUID"]]
    np.testing.assert_allclose(
        retriever.search(TEXTS, 4)[1], -np.sort(-dense_sums(retriever, TEXTS), axis=1)[:, :4], atol=2 * ATOL
    )
    answer = retriever.answer(["zyx wvu"], 1, explain=True)
    assert answer.explanation is not None
    first = answer.explanation[0, 0][0]
    assert (first.kind, first.text) == ("neighbour", "zyx wvu")


def test_reasons_are_the_votes(retriever: xmc.Retriever) -> None:
    answer = retriever.answer(TEXTS, 4, explain=True)
    assert answer.explanation is not None
    plain = retriever.embed_queries(TEXTS) @ retriever.embeddings.T
    for row, column in np.ndindex(answer.ids.shape):
        reasons = [reason for reason in answer.explanation[row, column] or () if reason.kind == "neighbour"]
        votes = answer.scores[row, column] - plain[row, answer.ids[row, column]]
        assert sum(reason.value for reason in reasons) == pytest.approx(votes, abs=2 * ATOL)
        assert all("item" in reason.text for reason in reasons)
    assert retriever.answer(TEXTS, 4).explanation is None


def test_a_saved_run_remembers(retriever: xmc.Retriever, data: Dataset, tmp_path: Path) -> None:
    retriever.remember(["one more"], [["GREEN"]])
    retriever.save(tmp_path / "run")
    again = xmc.Retriever.load(tmp_path / "run")
    assert "memory of 401 queries" in repr(again)
    for first, second in zip(retriever.predict(TEXTS, 5), again.predict(TEXTS, 5), strict=True):
        np.testing.assert_array_equal(first, second)
    assert again.labels.memory is not None
    assert again.labels.memory.fingerprint == retriever.labels.memory.fingerprint  # type: ignore[union-attr]
    again.use_memory(None)
    assert again.memory is None
    assert again.predict(TEXTS, 5)[1].max() <= 1 + ATOL


def test_a_job_answers_as_the_library(retriever: xmc.Retriever, data: Dataset, tmp_path: Path) -> None:
    retriever.save(tmp_path / "run")
    texts = texts_of_split(data)
    (tmp_path / "queries.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    predict_files(tmp_path / "run", tmp_path / "queries.jsonl", tmp_path / "out", k=5)
    table = pq.read_table(next((tmp_path / "out").glob("*.parquet")))
    found, scores = xmc.Retriever.load(tmp_path / "run").predict(texts, 5)
    assert table["labels"].to_pylist() == found.tolist()
    np.testing.assert_array_equal(np.array(table["scores"].to_pylist(), np.float32), scores)


def test_another_encoder_goes_with_the_run(run: Path, data: Dataset, tmp_path: Path) -> None:
    retriever = xmc.Retriever.load(run)
    other = DualEncoder.load(run)
    for parameter in other.query_encoder.parameters():
        parameter.data += 0.01
    stage = RecallQueries(RULE, other)
    texts = texts_of_split(data, "train")
    made = memory_of(retriever, data)
    memory = QueryMemory.from_lists(other.embed_queries(texts), made.lists(), texts, stage.encoder_name)
    with pytest.raises(InputError, match="memory is of another run"):
        retriever.use_memory(made, stage)
    retriever.use_memory(memory, stage)
    expected = retriever.predict(TEXTS, 5)
    retriever.save(tmp_path / "run")
    again = xmc.Retriever.load(tmp_path / "run")
    for first, second in zip(expected, again.predict(TEXTS, 5), strict=True):
        np.testing.assert_array_equal(first, second)
    again.remember(["something new"], [["RED"]])
    mixed = again.predict([xmc.Query(texts={"red": 1.0}, labels={"BLUE": 0.1}), xmc.Query(labels=["RED"])], 2)[0]
    assert mixed.shape == (2, 2)
    with pytest.raises(InputError, match="needs texts"):
        again.predict(again.embed_queries(TEXTS), 5)


def test_what_a_memory_refuses(retriever: xmc.Retriever, run: Path, data: Dataset, tmp_path: Path) -> None:
    plain = xmc.Retriever.load(run)
    with pytest.raises(InputError, match="has no memory"):
        plain.remember(["red"], [["RED"]])
    with pytest.raises(InputError, match="no label 'MAUVE'"):
        retriever.remember(["mauve"], [["MAUVE"]])
    with pytest.raises(InputError, match="is empty"):
        retriever.remember([" "], [["RED"]])
    with pytest.raises(InputError, match="list of uids for each text"):
        retriever.remember(["red"], ["RED"])
    with pytest.raises(InputError, match="2 lists of labels were given for 1 texts"):
        retriever.remember(["red"], [["RED"], ["BLUE"]])
    with pytest.raises(InputError, match="temperature of a memory must be a number above 0, but is 0"):
        VotingRule(temperature=0)
    memory = memory_of(plain, data)
    vectors = np.ascontiguousarray(memory.held.embeddings[:, :8])
    with pytest.raises(InputError, match="of another run: its vectors are of dimension 8"):
        plain.use_memory(QueryMemory.from_lists(vectors, memory.lists(), [""] * len(vectors)), RecallQueries(RULE))
    retriever.save(tmp_path / "run")
    with pytest.raises(StoreError, match="indexes other embeddings"):
        QueryMemory.read(tmp_path / "run" / "memory", "another model")


@pytest.mark.parametrize("count", [4_096, 5_003])
def test_screening_in_bfloat16_finds_the_nearest(count: int) -> None:
    """A processor without instructions for it searches exactly; the screening itself is tried on every one."""
    random = np.random.default_rng(0)
    vectors, queries = (random.normal(size=(rows, 24)).astype(np.float32) for rows in (count, 90))
    vectors[7] = vectors[1]  # equal ones come in the order of their rows
    queries[0] = vectors[1]
    memory = QueryMemory.from_lists(vectors, [np.zeros(1, np.int64)] * count, [""] * count)
    assert memory.screened or not multiplies_bfloat16(torch.device("cpu"))
    similarities, rows = memory.nearest(queries, 10)
    expected = queries.astype(np.float64) @ vectors.T
    order = np.argsort(-expected, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, order, 1), rtol=1e-5)
    assert rows[0, :2].tolist() == [1, 7]
    for row in (0, 50):
        np.testing.assert_array_equal(memory.nearest(queries[row : row + 1], 10)[1], rows[row : row + 1])
    screened = np.sort(screened_rows(queries, lowered(vectors), 20, count), axis=1)
    assert all(set(nearest) <= set(found) for nearest, found in zip(order.tolist(), screened.tolist(), strict=True))
    grown = memory.append(9 * queries[3:4], [np.ones(1, np.int64)], ["new"])
    assert grown.nearest(queries[3:4], 1)[1].tolist() == [[count]]
    np.testing.assert_array_equal(memory.exact().nearest(queries, 10)[1], rows)


def test_exact_and_cut_retrievers_remember(retriever: xmc.Retriever, data: Dataset) -> None:
    cells = memory_of(retriever, data, "IVF8,Flat")
    retriever.use_memory(cells, RecallQueries(RULE))
    exact = retriever.exact()
    np.testing.assert_allclose(
        exact.search(TEXTS, 5)[1], -np.sort(-dense_sums(exact, TEXTS), axis=1)[:, :5], atol=2 * ATOL
    )
    cut = retriever.cut(8)
    np.testing.assert_allclose(cut.search(TEXTS, 5)[1], -np.sort(-dense_sums(cut, TEXTS), axis=1)[:, :5], atol=2 * ATOL)
