"""A loaded retriever in other processes: forked, spawned, served by gunicorn, in joblib's workers."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import forked_child
import forked_ways
import numpy as np
import pytest
from pages import ROOT, Page
from small_models import MEAN, write_sentence_transformer

import xmc
from xmc.errors import XMCError

TWO_THREADS = os.environ | {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
"""What the library does by itself on a machine of two cores, whatever the tests run under."""
TEXTS = ["a red one", "blue and green"]
SERVED = TEXTS * 1000

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")


def run_forks(*runs: Path) -> str:
    command = [sys.executable, forked_child.__file__, *map(str, runs)]
    done = subprocess.run(command, env=TWO_THREADS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run with each kind of index."""
    found = [run]
    for design in ("int8", "HNSW8", "IVF2,Flat"):
        retriever = xmc.Retriever.load(run)
        retriever.reindex(design)
        found.append(tmp_path_factory.mktemp("designs") / "run")
        retriever.save(found[-1])
    return found


@pytest.mark.slow
def test_forked_children_answer_by_every_kind_of_index(runs: list[Path]) -> None:
    """They hung in torch's OpenMP, and were ended by numba's, in the thread that forked."""
    assert run_forks(*runs).split() == ["exact", "SQ8", "HNSW8", "IVF2,Flat"]


def opened(pickled: bytes) -> str:
    """What opening a pickled retriever says."""
    try:
        return repr(pickle.loads(pickled))
    except XMCError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.slow
def test_spawned_processes_answer_by_every_kind_of_index(runs: list[Path], tmp_path: Path) -> None:
    retrievers = [xmc.Retriever.load(run, device="cpu") for run in runs]
    retrievers[0].save(tmp_path / "gone")
    gone = pickle.dumps(retrievers[0])
    retrievers[0].save(tmp_path / "kept")
    shutil.rmtree(tmp_path / "gone")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map_async(forked_child.answers, retrievers).get(120)
        said = pool.map_async(opened, [pickle.dumps(retrievers[0]), gone]).get(120)
    assert said[0] == repr(retrievers[0])
    assert said[1].startswith(
        "StoreError: A retriever that was pickled is opened from its run directory, which cannot be"
    )
    assert str(tmp_path / "gone") in said[1]
    for retriever, in_child in zip(retrievers, found, strict=True):
        assert len(retriever) == 12
        forked_child.assert_same(in_child, forked_child.answers(retriever))


@pytest.mark.slow
@pytest.mark.parametrize("ways", [["grandchild", "meanwhile"], ["executor", "loader"], ["light", "training"]])
def test_children_of_every_kind(run: Path, ways: list[str]) -> None:
    command = [sys.executable, forked_ways.__file__, str(run), *ways]
    done = subprocess.run(command, env=TWO_THREADS, capture_output=True, text=True, timeout=500)
    assert (done.returncode, done.stdout.split()) == (0, ways), done.stderr


@pytest.mark.slow
def test_forked_children_answer_by_a_transformer(tmp_path: Path) -> None:
    model = write_sentence_transformer(tmp_path / "model", MEAN)
    xmc.Retriever.from_sentence_transformers(model, ["a boat", "the dog", "two cat"]).save(tmp_path / "run")
    assert run_forks(tmp_path / "run") == "exact\n"


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_gunicorn_serves_a_run_that_was_loaded_before_it_forked(run: Path, tmp_path: Path, threads: int) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed; pip install gunicorn")
    (code,) = (
        block.code for block in Page(ROOT / "docs" / "processes.md").blocks if block.code.startswith("import json")
    )
    (tmp_path / "served.py").write_text(code)
    address = str(tmp_path / "socket")
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--threads", str(threads)]
    command += ["--timeout", "60", "--bind", f"unix:{address}", "served:application"]
    environment = TWO_THREADS | {"RUN": str(run)}
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        said = next((line for line in server.stderr if "Listening" in line), "")
        assert said, "gunicorn ended"
        answers = [ask(address) for _ in range(4)]
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    expected = xmc.Retriever.load(run).predict(SERVED, k=2)[0].tolist()
    assert [answer["labels"] for answer in answers] == [expected] * 4


def ask(address: str) -> dict[str, object]:
    """POST texts, enough for several threads, to a server on a Unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    connection.sock.connect(address)
    connection.request("POST", "/", json.dumps(SERVED))
    response = connection.getresponse()
    assert response.status == 200, response.read()
    answer: dict[str, object] = json.loads(response.read())
    return answer


@pytest.mark.slow
def test_workers_of_joblib_get_a_retriever(run: Path) -> None:
    joblib = pytest.importorskip("joblib", reason="joblib comes with scikit-learn; pip install scikit-learn")
    retriever = xmc.Retriever.load(run)
    tasks = [
        joblib.delayed(function)([text]) for text in TEXTS for function in (retriever.embed_queries, retriever.predict)
    ]
    found = joblib.Parallel(n_jobs=2, backend="loky", timeout=120)(tasks)
    for text, embedding, (uids, scores) in zip(TEXTS, found[::2], found[1::2], strict=True):
        np.testing.assert_allclose(embedding, retriever.embed_queries([text]), rtol=1e-5, atol=1e-6)
        assert uids.tolist() == retriever.predict([text])[0].tolist()
        assert scores.shape == (1, 10)
