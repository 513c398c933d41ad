"""What tests of the server share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from worlds import colours, tiny_config

import xmc
from xmc.search.memory.queries import QueryMemory
from xmc.search.memory.stage import RecallQueries
from xmc.search.memory.votes import VotingRule


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("served") / "run"
    xmc.train(colours(), tiny_config(epochs=8), directory)
    return directory


@pytest.fixture(scope="session")
def remembering(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a memory of its training queries."""
    retriever, data = xmc.Retriever.load(run), colours()
    truth = data.targets("train").truth
    texts, ids = data.split("train").texts.to_pylist(), np.split(truth.indices.astype(np.int64), truth.indptr[1:-1])
    memory = QueryMemory.from_lists(retriever.embed_queries(texts), ids, texts)
    retriever.use_memory(memory, RecallQueries(VotingRule(5, 0.1, 0.7, 0.3, 0.6)))
    directory = tmp_path_factory.mktemp("remembering") / "run"
    retriever.save(directory)
    return directory
