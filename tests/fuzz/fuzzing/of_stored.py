"""Targets: what xmc has stored itself. Damaged, it is refused; with its checksums made right again it may be taken, and then
answers as a sound one does: labels that are there, numbers that are numbers, best first."""

from __future__ import annotations

import os
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from worlds import colours, tiny_config

import xmc
from fuzzing.targets import Case, Target, register
from xmc.config import CheckpointConfig
from xmc.data.dataset import Dataset
from xmc.data.token_cache import RaggedTokens, read_tokens, write_tokens
from xmc.errors import StoreError, XMCError
from xmc.indexes.factory import build_index
from xmc.indexes.label_index import LabelIndex
from xmc.light import LightRetriever
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule
from xmc.search.predicates import parse_predicate
from xmc.search.run_directory import RunDirectory
from xmc.serve.journal import Journal
from xmc.training.checkpoints import Checkpoints

TEXTS = ["item 3 red and blue", "pink", "an unknown thing"]
UNLISTED = ("metrics.jsonl",)


def write_run(folder: Path, index: str = "exact", calibrated: bool = False, memory: bool = False) -> None:
    """A run of a static encoder over twelve labels; trained once for all targets."""
    trained = Path(os.environ["XMC_CACHE"]).parent / f"run {index} {calibrated} {memory}"
    if not trained.exists():
        _train(trained, index, calibrated, memory)
    shutil.copytree(trained, folder, dirs_exist_ok=True)


def _train(folder: Path, index: str, calibrated: bool, memory: bool) -> None:
    data = colours()
    changes: dict[str, Any] = {"epochs": 1, **({"calibration": 0.3} if calibrated else {})}
    encoder = {"kind": "static", "dimension": 32, "table_rows": 256, "weight_slots": 256}
    xmc.train(data, tiny_config(encoder=encoder, index=index, **changes), folder)
    retriever = xmc.Retriever.load(folder)
    if calibrated:
        xmc.calibrate(retriever, data, candidates=12)
    if memory:
        truth = data.targets("train").truth
        texts, ids = data.split("train").texts.to_pylist(), np.split(truth.indices.astype(np.int64), truth.indptr[1:-1])
        retriever.use_memory(
            QueryMemory.from_lists(retriever.embed_queries(texts), ids, texts),
            RecallQueries(VotingRule(5, 0.1, 0.7, 0.3, 0.6)),
        )
    retriever.save(folder, overwrite=True)


def read_run(case: Case) -> None:
    """Load it and search, in one of the ways there are."""
    if not _whole(case):
        _require_refused(case)
    kind = case.chance.choice(["whole", "whole", "light", "labels", "parts"])
    if kind == "light":
        _check_answers(*LightRetriever.load(case.folder).predict(TEXTS, k=3), k=3)
        return
    if kind == "labels":
        labels = RunDirectory(case.folder).read_labels()
        assert len(labels.uids) == len(labels), "labels without uids"
        return
    if kind == "parts":
        RunDirectory(case.folder).bytes_by_content()
        RunDirectory(case.folder).read_label_embeddings()
        RunDirectory(case.folder).read_calibration()
        RunDirectory(case.folder).read_source_columns()
        RunDirectory(case.folder).read_model_and_labels()
        return
    retriever = xmc.Retriever.load(case.folder)
    known = set(retriever.labels.uids.to_pylist())
    found, scores = retriever.predict(TEXTS, k=3)
    _check_answers(found, scores, k=3)
    assert set(found[found != ""].ravel().tolist()) <= known | {None}, "a label that is not there"
    if retriever.calibration is not None:
        _, probabilities = retriever.predict_proba(TEXTS, k=3)
        assert np.isfinite(probabilities).all(), "a probability is no number"
        assert ((probabilities >= 0) & (probabilities <= 1)).all(), "a probability is beyond 0 and 1"
    _change(retriever, case)


def _change(retriever: Any, case: Case) -> None:
    """Search with a condition, change labels, and save elsewhere, now and then."""
    kind = case.chance.choice(["add", "similar", "save", "where", "", ""])
    if kind == "add":
        retriever.add_labels(["magenta"])
        retriever.predict(TEXTS, k=4)
    elif kind == "similar":
        retriever.similar_labels(retriever.labels.uids.to_pylist()[:1], k=2)
    elif kind == "where":
        retriever.predict(TEXTS, k=2, where=parse_predicate("uid != 'RED'"))
    elif kind == "save":
        place = case.place / "saved"
        shutil.rmtree(place, ignore_errors=True)
        retriever.save(place)
        again, _ = xmc.Retriever.load(place).predict(TEXTS, k=3)
        assert again.tolist() == retriever.predict(TEXTS, k=3)[0].tolist(), "another run is read than was written"


def _check_answers(found: Any, scores: Any, k: int) -> None:
    found, scores = np.asarray(found), np.asarray(scores)
    assert found.shape == scores.shape, "labels and scores do not fit"
    assert len(found) == len(TEXTS), "an answer is missing"
    assert found.shape[1] <= k, "more labels than were asked for"
    assert not np.isnan(scores).any(), "a score is no number"
    assert (np.diff(scores, axis=1) <= 0).all(), "scores are not in order"


def _whole(case: Case) -> bool:
    """Whether no checksum tells of the damage: the list of them is changed itself, nothing is, or they were made right."""
    changed = [name for name, content in case.changes.items() if case.files.get(name) != content]
    return case.repaired or not [name for name in changed if name not in ("manifest.json", "dataset.json", *UNLISTED)]


def _require_refused(case: Case) -> None:
    """A damaged file that a manifest vouches for is found by every reader of the whole."""
    try:
        xmc.Retriever.load(case.folder)
    except XMCError:
        return
    raise AssertionError(f"{sorted(case.changes)} is not as it was written, and nobody says so")


def write_index(folder: Path, design: str) -> None:
    """An index saved by itself."""
    vectors = np.random.default_rng(0).standard_normal((300 if design != "exact" else 40, 16)).astype(np.float32)
    index = build_index(design, 16)
    index.build(vectors, [f"label {row}" for row in range(len(vectors))])
    index.save(folder)


@cache
def _queries(dimension: int) -> Any:
    return np.random.default_rng(1).standard_normal((5, dimension)).astype(np.float32)


def read_index(case: Case) -> None:
    """Load and search, add and remove."""
    index = LabelIndex.load(case.folder)
    ids, scores = index.search(_queries(index.dimension), 7)
    known = set(index.ids.tolist())
    valid = np.isfinite(scores)
    assert not np.isnan(scores).any(), "a score is no number"
    assert set(np.asarray(ids)[valid].tolist()) <= known, "a label that is not there"
    if case.chance.random() < 0.3:
        index.add(
            _queries(index.dimension)[:2], ["new 1", "new 2"] if index.ids.dtype == object else [10**6, 10**6 + 1]
        )
        index.remove([index.ids[0]])
        index.search(_queries(index.dimension), 3)


def write_data_set(folder: Path) -> None:
    """A data set with relevances, filters and judgements."""
    data = colours()
    data.save(folder)
    table = pa.table({"query": ["test 0"], "label": ["RED"], "judgement": ["correct"]})
    uids = data.split("test").uids.to_pylist()
    pq.write_table(table.set_column(0, "query", pa.array(uids[:1])), folder / "judged-test.parquet")


def read_data_set(case: Case) -> None:
    """Everything in it, and a copy."""
    data = Dataset.load(case.folder)
    for split in data.properties["splits"]:
        rows, targets = data.split(split), data.targets(split)
        assert rows.positives.shape == (len(rows), len(data.labels)), "positives do not fit the labels"
        assert len(rows) == data.properties["splits"][split], "rows are missing"
        assert targets.truth.shape == rows.positives.shape
        data.judgements(split)
        data.filter(split)
    assert len(data.labels) == data.properties["labels"], "labels are missing"
    if case.chance.random() < 0.2:
        shutil.rmtree(case.place / "copy", ignore_errors=True)
        data.save(case.place / "copy")
        assert Dataset.load(case.place / "copy").fingerprint


def write_tokens_cache(folder: Path) -> None:
    """A file of the token cache."""
    lengths = np.arange(30) % 7
    values = np.arange(lengths.sum(), dtype=np.uint16)
    write_tokens(
        RaggedTokens(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)), folder / "tokens.arrow"
    )


def read_tokens_cache(case: Case) -> None:
    """What is read has the values that were written, or is refused."""
    tokens = read_tokens(case.only, mapped=case.chance.random() < 0.5)
    write_tokens_cache(case.place)
    written = read_tokens(case.place / "tokens.arrow")
    assert np.array_equal(tokens.values, written.values), "other tokens than were written"
    assert np.array_equal(tokens.offsets, written.offsets), "other tokens than were written"


def write_checkpoint(folder: Path) -> None:
    """A checkpoint of training."""
    checkpoints = Checkpoints(folder / "run", CheckpointConfig(steps=1))
    state = {"step": 3, "config": {"epochs": 2}, "dataset": "x", "random": [1, 2, 3]}
    checkpoints.save(3, {"weights": torch.arange(12.0).reshape(3, 4), "moments": torch.zeros(4)}, state)


def read_checkpoint(case: Case) -> None:
    """The latest one: what is damaged is passed over; tensors and state are whole."""
    latest = Checkpoints(case.folder / "run", CheckpointConfig(steps=1)).latest()
    if latest is None:
        raise StoreError("None is whole.")
    for name in latest.names:
        latest.tensor(name)
        if latest.tensor(name).ndim:
            latest.tensor(name, slice(0, 2))
    changed = [name for name, content in case.changes.items() if case.files.get(name) != content]
    if not case.repaired and all(not name.endswith("manifest.json") for name in changed):
        assert latest.tensor("weights").tolist() == torch.arange(12.0).reshape(3, 4).tolist(), (
            "other numbers than were saved"
        )


def write_journal(folder: Path) -> None:
    """A journal of five changes."""
    journal = Journal(folder / "run.changes")
    with journal.writing(run="abc") as writer:
        journal.follow()
        for number in range(5):
            writer.append({"kind": "labels", "add": [{"uid": f"u{number}"}], "update": [], "remove": []})
    journal.close()


def read_journal(case: Case) -> None:
    """Every change that was read is one that was written, in order, and from the first on."""
    journal = Journal(case.only)
    try:
        journal.follow()
        numbers = [entry.number for entry in journal.pending]
        said = [entry.content["add"][0]["uid"] for entry in journal.pending]
        assert numbers == list(range(1, len(numbers) + 1)), f"changes {numbers}"
        assert said == [f"u{number}" for number in range(len(said))], f"changes {said}"
        assert case.only.stat().st_size == 0 or journal.header is not None or not said
    finally:
        journal.close()


for _name, _options in {
    "exact": {},
    "hnsw": {"index": "HNSW8"},
    "calibrated": {"calibrated": True},
    "remembering": {"memory": True},
}.items():
    _write = partial(write_run, **_options)
    register(Target(f"run {_name}", _write, read_run, slow=300))
    register(Target(f"run {_name} repaired", _write, read_run, repaired=True, slow=600))
for _design in ("exact", "Flat", "HNSW8", "IVF4,Flat", "PQ4x4fs", "IVF4,PQ4x4fs,RFlat", "RaBitQ", "SQ8"):
    register(Target(f"index {_design}", partial(write_index, design=_design), read_index, repaired=True))
register(Target("index damaged", partial(write_index, design="HNSW8"), read_index, slow=500))
register(Target("data set", write_data_set, read_data_set, slow=1000))
register(Target("data set repaired", write_data_set, read_data_set, repaired=True, slow=1000))
register(Target("token cache", write_tokens_cache, read_tokens_cache, alternatives=True))
register(Target("checkpoint", write_checkpoint, read_checkpoint))
register(Target("checkpoint repaired", write_checkpoint, read_checkpoint, repaired=True))
register(Target("journal", write_journal, read_journal, alternatives=True))
