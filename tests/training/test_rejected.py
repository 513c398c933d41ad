"""Pairs that were judged not relevant are negatives in training, and never positives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from judged import rejecting
from worlds import colours, tiny_config

import xmc


def test_where_all_labels_are_scored_a_rejected_pair_is_a_negative_like_any_other(tmp_path: Path) -> None:
    """It was one of the negatives before anybody judged it, so judging it changes nothing, to the bit."""
    plain = colours()
    judged = rejecting(plain, tmp_path / "data")
    assert judged.split("train").rejected.nnz == 4 * 400
    for name, data in (("plain", plain), ("judged", judged)):
        xmc.train(data, tiny_config(epochs=2, negatives="all"), tmp_path / name)
    texts = plain.split("test").texts.to_pylist()
    (labels, scores), (other_labels, other_scores) = (
        xmc.Retriever.load(tmp_path / name).predict(texts, k=12) for name in ("plain", "judged")
    )
    assert labels.tolist() == other_labels.tolist()
    assert scores.tolist() == other_scores.tolist()
    embeddings = [np.asarray(xmc.Retriever.load(tmp_path / name).embeddings) for name in ("plain", "judged")]
    assert embeddings[0].tolist() == embeddings[1].tolist()


def test_a_label_of_relevance_0_is_not_learned(tmp_path: Path) -> None:
    """Every query names its rejected label first and its positive next; only the positive may be learned."""
    names = ["red", "green", "blue", "violet"]
    random = np.random.default_rng(0)
    lists = [[int(label)] for label in random.integers(0, 4, 400)]
    splits = {"train": ([""] * 300, lists[:300]), "test": ([""] * 100, lists[300:])}
    judged = rejecting(xmc.Dataset.from_lists("nameless", names, splits), tmp_path / "data", each=1)
    named = {}
    for split in ("train", "test"):
        targets = judged.targets(split)
        wrong = [names[row.indices[0]] for row in targets.rejected]
        true = [names[row.indices[0]] for row in targets.positives]
        texts = [f"not {no} but {yes} {row}" for row, (no, yes) in enumerate(zip(wrong, true, strict=True))]
        named[split] = pa.array(texts)
        file = tmp_path / "data" / f"queries-{split}.parquet"
        table = pq.read_table(file)
        pq.write_table(table.set_column(table.column_names.index("text"), "text", named[split]), file)
    data = xmc.Dataset.load(tmp_path / "data")
    xmc.train(data, tiny_config(epochs=10), tmp_path / "run")
    labels, _ = xmc.Retriever.load(tmp_path / "run").predict(named["train"].to_pylist(), k=1)
    rejected = judged.split("train").rejected[np.arange(300), labels[:, 0].astype(int)]
    positive = judged.split("train").positives[np.arange(300), labels[:, 0].astype(int)]
    assert positive.mean() > 0.95
    assert rejected.mean() < 0.05
