"""Table search with --gpu: a million label embeddings on a GPU, exactly and by FAISS's classes, at batches of 1, 32 and 1,024.

Seconds are those of a whole search: queries and answers are arrays in main memory. A CPU tries it out on a few random vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch
from measurements import Measurement
from rich.console import Console
from titles import Vectors, static_vectors

from xmc.errors import XMCError
from xmc.indexes.blocks import EmbeddingBlocks
from xmc.indexes.designs import design_of
from xmc.indexes.engines.faiss import FaissEngine, GpuFaissEngine
from xmc.indexes.scan import exact_search
from xmc.indexes.tuning.candidates import DEVICE_EXACT, TriedDesign, device_candidates
from xmc.indexes.versions import IndexVersion

__all__ = ["run_gpu"]

RECALLS = (0.95, 0.99)
"""Recalls at 10 that approximate designs are brought to, on queries for tuning."""
BATCHES = {1: 2_000, 32: 500, 1_024: 100}
"""Sizes of a batch, and how many are timed; a warm-up of a tenth goes before."""
GOALS = {("xmc exact:bfloat16", 1, "p99"): 0.5, ("xmc exact:bfloat16", 1_024, "p50"): 2.0}
"""Milliseconds that a method should need at most for a batch, over a million labels of 256 dimensions."""
SMALL_LABELS, SMALL_DIMENSION, SMALL_SHARE = 5_000, 32, 100
Floats = npt.NDArray[np.float32]
Search = Callable[[Floats], npt.NDArray[np.int64]]
console = Console()


@dataclass(frozen=True)
class _World:
    """Vectors, where they are searched, and the score of the tenth label of each query for tuning and for measuring."""

    vectors: Vectors
    devices: tuple[str, ...]
    seed: int
    lowest: tuple[Floats, Floats]

    @classmethod
    def of(cls, vectors: Vectors, devices: tuple[str, ...], seed: int) -> _World:
        """With the truth, by exact search on the processor."""
        blocks = EmbeddingBlocks([vectors.labels])
        tuning, test = (exact_search(queries, blocks, 10)[0][:, -1:] for queries in (vectors.tuning, vectors.queries))
        return cls(vectors, devices, seed, (tuning, test))

    def recall(self, search: Search, on_test: bool) -> float:
        """Share of the 10 best that are found; a label that scores as high as the tenth counts."""
        queries = self.vectors.queries if on_test else self.vectors.tuning
        rows = np.concatenate([search(queries[start : start + 1_024]) for start in range(0, len(queries), 1_024)])
        scores = np.einsum("nkd,nd->nk", self.vectors.labels[np.maximum(rows, 0)], queries)
        return float(((scores >= self.lowest[on_test] - 1e-5) & (rows >= 0)).mean())


def run_gpu(seed: int, methods: Sequence[str], small: bool) -> Iterator[list[Measurement]]:
    """Measure exact search in 32 and 16 bits, cuVS's, and each design of tuning's; small: on the processor, to try it out."""
    vectors = _random_vectors(seed) if small else static_vectors()
    world = _World.of(vectors, ("cpu",) if small else ("cuda",), seed)
    for name, rescore in DEVICE_EXACT:
        if _is_asked(f"xmc {name}", methods):
            version = _opened(world, name, rescore)
            yield _measured(f"xmc {name}", lambda queries, v=version: v.search(queries, 10)[1], world, small)
    if _is_asked("cuvs brute force", methods) and find_spec("cuvs") and not small:
        yield _measured("cuvs brute force", _cuvs(world), world, small)
    dimension = vectors.labels.shape[1]
    for tried in (TriedDesign("Flat"), *device_candidates(len(vectors.labels), dimension)):
        if _is_asked(f"faiss {tried.design}", methods):
            yield from _approximate(tried, world, small)


def _random_vectors(seed: int) -> Vectors:
    choose = np.random.default_rng(seed)
    parts = [choose.normal(size=(count, SMALL_DIMENSION)) for count in (SMALL_LABELS, 100, 100)]
    scaled = [(part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32) for part in parts]
    return Vectors(*scaled)


def _is_asked(name: str, methods: Sequence[str]) -> bool:
    return not methods or name.startswith(tuple(methods))


def _opened(world: _World, design: str, rescore: int) -> IndexVersion:
    labels = np.ascontiguousarray(world.vectors.labels)
    return IndexVersion.from_embeddings(
        design_of(design, labels.shape[1]), EmbeddingBlocks([labels]), rescore, world.devices
    )


def _approximate(tried: TriedDesign, world: _World, small: bool) -> Iterator[list[Measurement]]:
    """A design of FAISS's at the smallest effort that reaches each recall; it says so where it is not on the GPU."""
    name = f"faiss {tried.design}"
    try:
        start = time.perf_counter()
        version = _opened(world, tried.design, max(tried.depths))
        seconds = time.perf_counter() - start
    except XMCError as error:
        console.print(f"{name} is left out: {error}")
        return
    engine = version.engine
    assert isinstance(engine, (FaissEngine, GpuFaissEngine))
    if not (small or isinstance(engine, GpuFaissEngine)):
        console.print(f"{name} is left out: it stays on the processor (--verbose of xmc says why)")
        return
    build = Measurement("search", f"{name}, gpu", "build", seconds, "seconds", world.seed)

    def search(queries: Floats) -> npt.NDArray[np.int64]:
        return version.search(queries, 10)[1]

    for recall in RECALLS if tried.walk else RECALLS[-1:]:
        for effort in tried.values or (0,):
            if tried.walk:
                engine.set_parameters(tried.design, {tried.walk: effort})
            if not tried.walk or world.recall(search, on_test=False) >= recall:
                label = f"{name} at {recall}" if tried.walk else name
                yield [build, *_measured(label, search, world, small)]
                break
        else:
            console.print(f"{name} does not reach a recall of {recall}")


def _measured(name: str, search: Search, world: _World, small: bool) -> list[Measurement]:
    method = f"{name}, gpu"
    found = [
        Measurement("search", method, "recall@10", 100 * world.recall(search, on_test=True), "percent", world.seed)
    ]
    for size, count in BATCHES.items():
        seconds = _seconds(search, world.vectors.queries, size, max(3, count // (SMALL_SHARE if small else 1)))
        found.append(
            Measurement(
                "search", method, f"batch of {size}", size / float(np.mean(seconds)), "queries/second", world.seed
            )
        )
        for quantile, share in (("p50", 0.5), ("p99", 0.99)):
            milliseconds = float(np.quantile(seconds, share)) * 1e3
            found.append(Measurement("search", method, f"{quantile} of {size}", milliseconds, "ms", world.seed))
            goal = GOALS.get((name, size, quantile))
            if goal is not None and not small:
                met = "met" if milliseconds <= goal else "missed"
                console.print(f"{name}: {quantile} of {size} is {milliseconds:.3f} ms, the goal of {goal} ms is {met}")
    return found


def _seconds(search: Search, queries: Floats, size: int, count: int) -> list[float]:
    """Of each batch, after a tenth of them to warm up; queries come again where there are too few."""
    rows = np.arange(size)
    seconds = []
    for number in range(-(count // 10) - 1, count):
        batch = queries[(rows + number * size) % len(queries)]
        start = time.perf_counter()
        search(batch)
        if number >= 0:
            seconds.append(time.perf_counter() - start)
    return seconds


def _cuvs(world: _World) -> Search:
    """cuVS's exact search in 32 bits over labels that are on the GPU."""
    from cuvs.neighbors import brute_force

    labels = torch.from_numpy(np.ascontiguousarray(world.vectors.labels)).to(world.devices[0])
    torch.cuda.synchronize()  # cuVS works on a stream of its own
    index = brute_force.build(labels, metric="inner_product")

    def search(queries: Floats) -> npt.NDArray[np.int64]:
        assert len(labels)  # the index is a view of it
        asked = torch.from_numpy(queries).to(labels.device)
        scores = torch.empty(len(asked), 10, device=asked.device)
        rows = torch.empty(len(asked), 10, dtype=torch.int64, device=asked.device)
        torch.cuda.synchronize()
        brute_force.search(index, asked, 10, neighbors=rows, distances=scores)
        torch.cuda.synchronize()
        return rows.cpu().numpy()

    return search
