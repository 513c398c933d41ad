"""Table search: a million label embeddings indexed by this library and by its peers, on the same vectors in one run.

Each method has processes of its own: one builds, walks its parameter to the recall on queries for tuning, measures on others
and saves; another loads. Methods run one after the other, with two threads.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kernel_problems import resident
from measurements import Measurement
from rich.console import Console
from search_codes import CODES
from search_gpu import run_gpu
from search_methods import METHODS as OTHERS
from search_methods import Method
from titles import CACHE, Vectors, minilm_vectors, static_vectors, titles_at_most

from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.scan import exact_search

__all__ = ["run", "serve"]

RECALLS = (0.95, 0.99)
"""Recalls at 10 that every method is brought to."""
SINGLE, SINGLE_SECONDS = 2_000, 20.0
"""Queries asked one by one for latencies: so many, or fewer where they take longer."""
ROUNDS = 5
NOT_REACHED = "not reached"
METHODS: dict[str, type[Method]] = {method.name: method for method in (*OTHERS, *CODES)}
Row = tuple[str, float, str]
"""Metric, value, unit."""
WORLDS = {"titles": static_vectors, "titles MiniLM": minilm_vectors}
console = Console()


@dataclass(frozen=True)
class _Truth:
    """The 100 best rows of each query, and the lowest score among the best 10 and 100."""

    labels: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, labels: npt.NDArray[np.float32], queries: npt.NDArray[np.float32]) -> _Truth:
        """By this library's streaming search."""
        return cls(labels, queries, exact_search(queries, EmbeddingBlocks([labels]), 100)[1])

    def recall(self, found: npt.NDArray[np.int64]) -> float:
        """Share of the k best that were found, on average; a label that scores as high as the k-th best counts."""
        k = found.shape[1]
        total = 0.0
        for query, rows, best in zip(self.queries, found, self.rows[:, k - 1], strict=True):
            scores = self.labels[rows[rows >= 0]] @ query
            total += float((scores >= self.labels[best] @ query - 1e-5).sum())
        return total / found.size


def run(seed: int, methods: Sequence[str], gpu: bool = False, small: bool = False) -> Iterator[list[Measurement]]:
    """Measure every method that is installed, on all titles by the static encoder and on some by MiniLM.

    gpu: what search_gpu.py measures instead. small: that on a CPU, with a few random vectors.
    """
    if gpu:
        yield from run_gpu(seed, methods, small)
        return
    for world, vectors in WORLDS.items():
        if titles_at_most() is not None and world != "titles":
            continue
        vectors()  # made before anything is measured
        for name, method in METHODS.items():
            if methods and not name.startswith(tuple(methods)):
                continue
            if not method.is_installed():
                console.print(f"{name} is left out, it is not installed: pip install {method.package}")
                continue
            console.print(f"search: {name}, {world}", highlight=False)
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                for part in ("build", *(f"load {recall}" for recall in RECALLS)):
                    rows = _child(part, world, name, folder)
                    if rows:  # a method that does not tune itself has one index, and one load
                        yield [Measurement("search", f"{name}, {world}", *row, seed=seed) for row in rows]


def serve(part: str, world: str, name: str, folder: str) -> None:
    """A child's side: what it measures goes to standard output, a line each."""
    method, vectors = METHODS[name](), WORLDS[world]()
    importlib.import_module(method.package)
    if part == "build":
        measured = _built(method, vectors, Path(folder))
    else:
        measured = _loaded(method, vectors.queries, Path(folder) / part.removeprefix("load "))
    for row in measured:
        print("measured", json.dumps(row), flush=True)


def _child(part: str, world: str, name: str, folder: str) -> list[Row]:
    command = [sys.executable, "-c", "import sys, search; search.serve(*sys.argv[1:])", part, world, name, folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent, env=environment
    )
    lines = [line.removeprefix("measured ") for line in done.stdout.splitlines() if line.startswith("measured ")]
    return [tuple(json.loads(line)) for line in lines]


def _built(method: Method, vectors: Vectors, folder: Path) -> Iterator[Row]:
    labels = np.array(vectors.labels)  # in memory, for every method alike
    tuning, test = (_Truth.of(labels, queries) for queries in (vectors.tuning, vectors.queries))
    for recall in RECALLS:
        if recall == RECALLS[0] or not method.walks:
            start = time.perf_counter()
            method.build(labels, vectors.tuning, recall)
            yield f"build for {recall}" if not method.walks else "build", time.perf_counter() - start, "seconds"
        path = folder / str(recall)
        path.mkdir()
        if recall == RECALLS[0] or not method.walks:
            method.save(path / "index")
            yield f"memory at {recall}", method.memory(path / "index", len(labels)), "bytes/label"
        effort = _effort(method, tuning, recall)
        if effort == NOT_REACHED:
            console.print(f"{method.name} does not reach a recall of {recall}")
            continue
        (path / "effort.json").write_text(json.dumps(effort), encoding="utf-8")
        yield from _measured(method, test, effort, recall)


def _effort(method: Method, tuning: _Truth, recall: float) -> Any:
    """The fastest setting that reaches a recall at 10 on the queries for tuning; the first that does, of each walk."""
    best, most = NOT_REACHED if method.walks else None, 0.0
    for walk in method.walks:
        low, high, reached = 0, len(walk) - 1, None
        while low <= high:
            middle = (low + high) // 2
            start = time.perf_counter()
            found = method.search(tuning.queries, 10, walk[middle])
            speed = len(found) / (time.perf_counter() - start)
            if tuning.recall(found) >= recall:
                reached, high = (walk[middle], speed), middle - 1
            else:
                low = middle + 1
        if reached is not None and reached[1] > most:
            best, most = reached
    return best


def _measured(method: Method, test: _Truth, effort: Any, recall: float) -> Iterator[Row]:
    for k in (10, 100):
        yield f"recall@{k} at {recall}", 100 * test.recall(method.search(test.queries, k, effort)), "percent"
    speeds, seconds = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        method.search(test.queries, 10, effort)
        speeds.append(len(test.queries) / (time.perf_counter() - start))
    yield f"batch at {recall}", float(np.median(speeds)), "queries/second"
    for query in test.queries[:SINGLE]:
        if sum(seconds) > SINGLE_SECONDS:
            break
        start = time.perf_counter()
        method.search(query[None], 10, effort)
        seconds.append(time.perf_counter() - start)
    for name, quantile in (("p50", 0.5), ("p99", 0.99)):
        yield f"{name} of one query at {recall}", float(np.quantile(seconds, quantile)) * 1e3, "ms"


def _loaded(method: Method, queries: npt.NDArray[np.float32], path: Path) -> Iterator[Row]:
    if not (path / "effort.json").exists() or not (path / "index").exists():
        return
    effort = json.loads((path / "effort.json").read_text(encoding="utf-8"))
    effort = tuple(effort) if isinstance(effort, list) else effort
    before = resident("VmRSS")
    start = time.perf_counter()
    method.load(path / "index")
    method.search(queries[:1], 10, effort)
    yield f"load to first answer at {path.name}", time.perf_counter() - start, "seconds"
    method.search(queries, 10, effort)
    yield f"resident memory at {path.name}", (resident("VmRSS") - before) / 2**20, "MiB"
    yield f"memory of its own at {path.name}", resident("RssAnon") / 2**20, "MiB"
