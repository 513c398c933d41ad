"""Searches beside other threads: Python runs on, and FAISS's threads are shared."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import pairwise

import faiss
import numpy as np
import pytest
import random_vectors

from xmc.indexes.factory import build_index
from xmc.indexes.threads import shared_threads

vectors = partial(random_vectors.vectors, dimension=64)


@pytest.mark.parametrize(("design", "queries"), [("exact", 8), ("exact", 4000), ("IVF64,SQ8", 4000), ("HNSW8", 4000)])
def test_python_runs_on_during_a_search(design: str, queries: int) -> None:
    """A search lets other threads run: with a switch interval that never ends, they could not unless it gives way itself."""
    index, asked = build_index(design, 64), vectors(queries, 1)
    index.build(vectors(20_000, 0), np.arange(20_000))
    index.search(asked, 10)  # what is made at the first search is made now
    ticks, shares = list[float](), list[float]()

    def search() -> None:
        # One search may be over before a busy machine turns to the other thread.
        while len(shares) < 200 and min(shares, default=1.0) >= 0.5:
            ticks.clear()
            begin = time.perf_counter()
            index.search(asked, 10)
            end = time.perf_counter()
            moments = [begin, *(tick for tick in tuple(ticks) if begin < tick < end), end]
            shares.append(max(later - moment for moment, later in pairwise(moments)) / (end - begin))

    interval, thread = sys.getswitchinterval(), threading.Thread(target=search)
    sys.setswitchinterval(1e6)
    try:
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0)  # gives way to the search
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert min(shares) < 0.5  # of its time a search kept this thread waiting for less than half at once


def test_searches_at_once_share_the_threads() -> None:
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(4)
        seen, inside, leave = [], threading.Barrier(3), threading.Barrier(3)

        def search() -> None:
            faiss.omp_set_num_threads(4)
            with shared_threads():
                inside.wait()
                leave.wait()
            seen.append(faiss.omp_get_max_threads())

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        inside.wait()
        with shared_threads():
            assert faiss.omp_get_max_threads() == 1  # a third of four
        assert faiss.omp_get_max_threads() == 4
        leave.wait()
        for thread in threads:
            thread.join()
        assert seen == [4, 4]
        with shared_threads():
            assert faiss.omp_get_max_threads() == 4
    finally:
        faiss.omp_set_num_threads(before)


def test_the_environment_is_left_as_it_was() -> None:
    code = "import os; from xmc.indexes.library import faiss; print(os.environ.get('OMP_WAIT_POLICY'))"
    for policy in ("", "active"):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        if policy:
            environment["OMP_WAIT_POLICY"] = policy
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == (policy or "None")
