"""Table live: an index over a few labels grows to a million and loses some of them while four threads search it.

Each search is that of a snapshot. Every so often one is checked, by numpy over the labels that are in that snapshot, which
must be those between two changes. Then the index is saved, loaded, and saved again by processes that are killed meanwhile.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filters import EQUAL, K, best_scores, index_of, quantile, true_scores
from kernel_problems import resident
from measurements import Measurement
from rich.console import Console
from titles import CACHE, Vectors, static_vectors

from xmc.errors import StoreError
from xmc.indexes.factory import load_index
from xmc.indexes.label_index import IndexSnapshot, LabelIndex
from xmc.progress import tracked

__all__ = ["SIZES", "Sizes", "measure", "run"]

Embeddings = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Row = tuple[str, float, str]
"""Metric, value, unit."""

DESIGNS: dict[str, dict[str, Any]] = {
    "exact": {},
    "IVF4096,PQ128x4fs,Refine(SQ8)": {"parameters": {"nprobe": 181, "k_factor_rf": 8}, "rescore": 2},
    "HNSW32,SQ8": {"parameters": {"efSearch": 512}},
}
"""Designs, and settings of FaissDesign, and rescore, with which they find about 95% of the ten best of a million labels."""
BATCH = 16
"""Queries of half of the searches; the others are of one."""
SINGLE_ADDS = 500
console = Console()


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    first: labels at the start; then come `blocks` of `block` labels, and `removed` go after each.
    check_seconds: the time between two searches that are checked.
    rest: queries asked when nothing changes any more.
    """

    first: int = 38_183
    block: int = 10_000
    blocks: int = 100
    removed: int = 2_000
    threads: int = 4
    check_seconds: float = 1.0
    rest: int = 4_000
    kills: int = 20


SIZES = Sizes()


def run(seed: int, methods: Sequence[str]) -> Iterator[list[Measurement]]:
    """Measure each design on all titles by the static encoder, in a process of its own."""
    titles = len(static_vectors().labels)  # made before anything is measured
    sizes = replace(SIZES, blocks=min(SIZES.blocks, (titles - SIZES.first) // SIZES.block))
    for design, options in DESIGNS.items():
        if methods and not design.startswith(tuple(methods)):
            continue
        console.print(f"live: {design}", highlight=False)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            yield process.submit(_measure, design, options, sizes, seed).result()


def _measure(design: str, options: dict[str, Any], sizes: Sizes, seed: int) -> list[Measurement]:
    return measure(static_vectors(), design, options, sizes, seed)


def measure(vectors: Vectors, design: str, options: dict[str, Any], sizes: Sizes, seed: int) -> list[Measurement]:
    """Change, search, save, load and kill; what this process has used before is in its memory."""
    plan = _Plan.of(sizes, seed)
    index = index_of(design, vectors.labels.shape[1], options)
    rows = list(_live(index, vectors, plan, sizes, exact=design == "exact", seed=seed))
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        rows += _stored(index, vectors, Path(folder) / "index")
        rows += _killed(index.ids, Path(folder) / "index", sizes.kills, seed)
    return [Measurement("live", design, *row, seed) for row in rows]


@dataclass(frozen=True)
class _Plan:
    """Which labels come and go when. The id of a label is its row.

    gone: at which block a label is removed; a number above all blocks for one that stays.
    """

    sizes: Sizes
    gone: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sizes: Sizes, seed: int) -> _Plan:
        """Removed labels are drawn from those that were there before the block, so its last one shows which came last."""
        choose = np.random.default_rng(seed)
        gone = np.full(sizes.first + sizes.blocks * sizes.block, sizes.blocks + 1)
        for block in range(1, sizes.blocks + 1):
            there = np.flatnonzero(gone[: sizes.first + (block - 1) * sizes.block] > sizes.blocks)
            gone[choose.choice(there, sizes.removed, replace=False)] = block
        return cls(sizes, gone)

    def added(self, block: int) -> Rows:
        """The labels of a block; block 0 is the start."""
        end = self.sizes.first + block * self.sizes.block
        return np.arange(end - self.sizes.block if block else 0, end)

    def is_between_changes(self, ids: Rows) -> bool:
        """Whether these were all the labels at one moment: before or after the removal that follows a block."""
        block, rest = divmod(int(ids[-1]) + 1 - self.sizes.first, self.sizes.block)
        gone = self.gone[: ids[-1] + 1]
        return not rest and any(np.array_equal(ids, np.flatnonzero(gone > block - late)) for late in (0, 1))


@dataclass
class _Seen:
    """What one thread saw.

    single: seconds of each search of one query. recalls: of each checked query, with the block that came last.
    wrong: checked queries with a label that is not there, one that comes twice, or, of exact search, any difference.
    torn: checked snapshots that hold the labels of no moment.
    """

    single: list[float] = field(default_factory=list)
    searches: int = 0
    queries: int = 0
    checked: int = 0
    wrong: int = 0
    torn: int = 0
    recalls: list[tuple[int, float]] = field(default_factory=list)


class _Searches:
    """Threads that search until they are told to stop."""

    def __init__(self, index: LabelIndex, vectors: Vectors, plan: _Plan, exact: bool, seed: int) -> None:
        self._index, self._vectors, self._plan, self._exact = index, vectors, plan, exact
        self._done, self._due, self._lock = threading.Event(), 0.0, threading.Lock()
        self._failures: list[BaseException] = []
        self.seen = [_Seen() for _ in range(plan.sizes.threads)]
        self._threads = [
            threading.Thread(target=self._search, args=(seen, [seed, number])) for number, seen in enumerate(self.seen)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the searches under way; raises what a thread raised."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _search(self, seen: _Seen, seed: list[int]) -> None:
        choose, queries = np.random.default_rng(seed), self._vectors.queries
        try:
            while not self._done.is_set():
                asked = queries[choose.integers(0, len(queries), choose.choice([1, BATCH]))]
                snapshot = self._index.snapshot()
                start = time.perf_counter()
                ids, scores = snapshot.search(asked, K)
                if len(asked) == 1:
                    seen.single.append(time.perf_counter() - start)
                seen.searches += 1
                seen.queries += len(asked)
                if self._is_due():
                    self._check(seen, snapshot, asked, np.asarray(ids, np.int64), scores)
        except BaseException as error:
            self._failures.append(error)

    def _is_due(self) -> bool:
        with self._lock:
            due = time.perf_counter() >= self._due
            if due:
                self._due = time.perf_counter() + self._plan.sizes.check_seconds
            return due

    def _check(
        self, seen: _Seen, snapshot: IndexSnapshot, queries: Embeddings, found: Rows, scores: Embeddings
    ) -> None:
        ids = np.asarray(snapshot.ids, np.int64)
        seen.torn += not self._plan.is_between_changes(ids)
        labels = self._vectors.labels[: ids[-1] + 1]
        there = np.zeros(len(labels), bool)
        there[ids] = True
        best = best_scores(queries, labels, there, K)
        valid = (found >= 0) & (found < len(labels))
        valid[valid] = there[found[valid]]
        true = true_scores(queries, labels, np.where(valid, found, -1))
        wrong = ~valid.all(axis=1) | [len(set(row)) < K for row in found.tolist()]
        if self._exact:
            wrong |= ~((abs(scores - best) <= EQUAL) & (abs(true - best) <= EQUAL)).all(axis=1)
        seen.wrong += int(wrong.sum())
        seen.checked += len(queries)
        block = (len(labels) - self._plan.sizes.first) // self._plan.sizes.block
        seen.recalls += [(block, recall) for recall in (true >= best[:, -1:] - EQUAL).mean(axis=1).tolist()]


def _live(index: LabelIndex, vectors: Vectors, plan: _Plan, sizes: Sizes, *, exact: bool, seed: int) -> Iterator[Row]:
    """All changes, with searches meanwhile; then the same queries at rest."""
    start = time.perf_counter()
    index.add(vectors.labels[: sizes.first], plan.added(0))
    yield "start", time.perf_counter() - start, "seconds"
    searches = _Searches(index, vectors, plan, exact, seed)
    changes: list[float] = []
    own = 0.0
    start = time.perf_counter()
    try:
        for block in tracked(range(1, sizes.blocks + 1), "changing", unit="blocks"):
            for change in (_add, _remove):
                began = time.perf_counter()
                change(index, vectors, plan, block)
                changes.append(time.perf_counter() - began)
            own = max(own, resident("RssAnon"))
    finally:
        seconds = time.perf_counter() - start
        searches.stop()
    seen = searches.seen
    single = [value for one in seen for value in one.single]
    yield "changes", seconds, "seconds"
    yield "longest change", max(changes), "seconds"
    yield "added", sizes.blocks * sizes.block / seconds, "labels/second"
    yield "searches meanwhile", sum(one.searches for one in seen) / seconds, "searches/second"
    yield "queries meanwhile", sum(one.queries for one in seen) / seconds, "queries/second"
    yield "p50 of one query meanwhile", quantile(single, 0.5), "ms"
    yield "p99 of one query meanwhile", quantile(single, 0.99), "ms"
    yield "checked", sum(one.checked for one in seen), "queries"
    yield "wrong results", sum(one.wrong for one in seen), "queries"
    yield "snapshots that are of no moment", sum(one.torn for one in seen), "snapshots"
    yield from _recalls([pair for one in seen for pair in one.recalls], sizes.blocks)
    yield "memory (VmHWM)", resident("VmHWM") / 2**20, "MiB"
    yield "memory of its own (RssAnon)", own / 2**20, "MiB"
    yield from _at_rest(index, vectors, plan, sizes)


def _add(index: LabelIndex, vectors: Vectors, plan: _Plan, block: int) -> None:
    rows = plan.added(block)
    index.add(vectors.labels[rows[0] : rows[-1] + 1], rows)


def _remove(index: LabelIndex, vectors: Vectors, plan: _Plan, block: int) -> None:
    index.remove(np.flatnonzero(plan.gone == block))


def _recalls(pairs: list[tuple[int, float]], blocks: int) -> Iterator[Row]:
    """Over all that was checked, and over that of each fifth of the changes."""
    recalls = np.array([recall for _, recall in pairs])
    fifths = np.array([min(4, 5 * block // blocks) for block, _ in pairs])
    yield f"recall@{K} meanwhile", 100 * float(recalls.mean()), "percent"
    yield f"recall@{K} meanwhile, standard error", 100 * float(recalls.std()) / len(recalls) ** 0.5, "percent"
    for fifth in range(5):
        if (fifths == fifth).any():
            yield (
                f"recall@{K} in fifth {fifth + 1} of the changes",
                100 * float(recalls[fifths == fifth].mean()),
                "percent",
            )


def _at_rest(index: LabelIndex, vectors: Vectors, plan: _Plan, sizes: Sizes) -> Iterator[Row]:
    queries, there = vectors.queries[: sizes.rest], plan.gone > sizes.blocks
    yield "labels", len(index), "labels"
    yield "labels that differ from what was asked", len(np.setxor1d(index.ids, np.flatnonzero(there))), "labels"
    labels = vectors.labels[: len(there)]
    best = best_scores(queries, labels, there, K)
    found = np.asarray(index.search(queries, K)[0], np.int64)
    right = (true_scores(queries, labels, found) >= best[:, -1:] - EQUAL) & there[found]
    yield f"recall@{K} at rest", 100 * float(right.mean()), "percent"
    seconds = []
    for query in queries[:300]:
        start = time.perf_counter()
        index.search(query[None], K)
        seconds.append(time.perf_counter() - start)
    yield "p50 of one query at rest", quantile(seconds, 0.5), "ms"
    yield "p99 of one query at rest", quantile(seconds, 0.99), "ms"
    yield from _single_adds(index, labels)


def _single_adds(index: LabelIndex, labels: Embeddings) -> Iterator[Row]:
    """Labels that come one at a time, and go again together."""
    new, seconds = len(labels) + np.arange(SINGLE_ADDS), []
    for label in new:
        start = time.perf_counter()
        index.add(labels[:1], label[None])
        seconds.append(time.perf_counter() - start)
    index.remove(new)
    yield "p50 of adding one label at rest", quantile(seconds, 0.5), "ms"
    yield "p99 of adding one label at rest", quantile(seconds, 0.99), "ms"


def _stored(index: LabelIndex, vectors: Vectors, directory: Path) -> Iterator[Row]:
    """Saved and loaded: ids, embeddings and results must be equal."""
    start = time.perf_counter()
    index.save(directory)
    yield "save", time.perf_counter() - start, "seconds"
    yield "on disk", sum(file.stat().st_size for file in directory.iterdir()) / 2**20, "MiB"
    start = time.perf_counter()
    loaded = load_index(directory)
    yield "load", time.perf_counter() - start, "seconds"
    differing = float(not np.array_equal(loaded.ids, index.ids))
    for ids in np.array_split(np.asarray(index.ids, np.int64), 64):
        differing += not np.array_equal(loaded.snapshot().vectors(ids), vectors.labels[ids])
    for asked in (vectors.queries[:1], vectors.queries[:500]):
        for one, other in zip(loaded.search(asked, K), index.search(asked, K), strict=True):
            differing += not np.array_equal(one, other)
    yield "differences after loading", differing, ""


SAVE = """
import sys, time
from xmc.indexes.factory import load_index
index = load_index(sys.argv[1])
print("saving", flush=True)
start = time.perf_counter()
index.save(sys.argv[1])
print(time.perf_counter() - start, flush=True)
"""


def _killed(ids: Rows, directory: Path, kills: int, seed: int) -> Iterator[Row]:
    """Saved over itself by a process that is killed at a random moment of the time that it takes, again and again."""
    with _saving(directory) as unharmed:
        output, _ = unharmed.communicate()
    duration, chance = float(output), random.Random(seed)
    early = broken = lost = left = 0
    for _ in range(kills):
        before = directory.stat().st_ino
        with _saving(directory) as process:
            time.sleep(chance.uniform(0, duration))
            process.kill()
        early += directory.stat().st_ino == before
        try:
            lost += len(np.setdiff1d(ids, load_index(directory).ids))
        except StoreError as error:
            console.print(str(error))
            broken += 1
        for leftover in directory.parent.glob(f".{directory.name}.*"):
            left += 1
            shutil.rmtree(leftover)
    yield "save by another process", duration, "seconds"
    yield "kills while saving", kills, ""
    yield "kills before the new index took its place", early, ""
    yield "unreadable indexes after a kill", broken, ""
    yield "lost labels", lost, "labels"
    yield "temporary folders left by kills", left, ""


def _saving(directory: Path) -> subprocess.Popen[str]:
    """A process that has begun to save the index over itself."""
    process = subprocess.Popen([sys.executable, "-c", SAVE, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "saving\n"
    return process
