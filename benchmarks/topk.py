"""Table topk: exact top-k search against its floor, matmul + topk, and FAISS's flat index.

The floor is 2·B·L·D flops at the rate of torch.matmul in this run. Extra memory is what comes on top of the inputs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from kernel_problems import Size, Worker, embeddings, in_turns, matmul_rate, peak_memory, quantiles, seconds_of
from measurements import Measurement
from torch import Tensor

from xmc.kernels.topk import topk_inner_product

__all__ = ["method_of", "run"]

CPU_CASES = ((Size(256, 1_000_000, 128), 100), (Size(1, 1_000_000, 128), 100), (Size(1024, 100_000, 256), 10))
GPU_CASES = tuple(
    (Size(queries, 1_310_720, dimension, dtype, "cuda"), k)
    for queries, dimension, dtype, k in (
        (1024, 768, "bf16", 100),
        (1024, 384, "bf16", 100),
        (4096, 768, "bf16", 10),
        (1024, 768, "fp32", 100),
        (1024, 768, "bf16", 2048),
    )
)
Search = Callable[[], tuple[Tensor, Tensor]]


def methods(size: Size, k: int, seed: int) -> dict[str, Search]:
    """Every method that runs here, by name."""
    queries, labels, _ = embeddings(size, seed, positives=1)
    found: dict[str, Search] = {}
    for kind in ("torch", "triton") if size.device == "cuda" else ("torch",):
        found[f"xmc {kind}"] = lambda kind=kind: topk_inner_product(queries, labels, k, impl=kind)  # type: ignore[misc]
    found["matmul + topk"] = lambda: tuple((queries @ labels.T).topk(k, dim=1))
    if importlib.util.find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatIP(size.dimension)
        if size.device == "cuda" and not hasattr(faiss, "StandardGpuResources"):
            return found
        if size.device == "cuda":
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        index.add(labels.float().cpu().numpy())
        asked: np.ndarray = queries.float().cpu().numpy()
        found["faiss flat"] = lambda: tuple(torch.from_numpy(part) for part in index.search(asked, k))
    return found


def method_of(size: Size, method: str, seed: int) -> Search:
    """One method's search, for a process of its own."""
    name, k = method.split(", k=")
    return methods(size, int(k), seed)[name]


def run(seed: int, names: Sequence[str], gpu: bool = False) -> Iterator[list[Measurement]]:
    """Measure each case, all methods in turns; the labels found are compared with those of matmul + topk."""
    for size, k in GPU_CASES if gpu else CPU_CASES:
        floor = 2.0 * size.queries * size.labels * size.dimension / matmul_rate(size)
        searches = {n: f for n, f in methods(size, k, seed).items() if not names or n.startswith(tuple(names))}
        found = {name: search()[1].cpu() for name, search in searches.items()}
        if gpu:
            memory = {name: peak_memory(search, "cuda") for name, search in searches.items()}
            seconds = in_turns({name: partial(seconds_of, search) for name, search in searches.items()}, 9)
        else:
            workers = {name: Worker("topk", size, f"{name}, k={k}", seed) for name in searches}
            memory = {name: worker.memory for name, worker in workers.items()}
            seconds = in_turns({name: worker.seconds for name, worker in workers.items()}, 9)
            for worker in workers.values():
                worker.close()
        for name, samples in seconds.items():
            p20, p50, p80 = quantiles(samples)
            method = f"{name}, k={k} {size}"
            rows = [
                Measurement("topk", method, "time", p50 * 1e3, "ms", seed, p20 * 1e3, p80 * 1e3),
                Measurement("topk", method, "time / floor", p50 / floor, "", seed, p20 / floor, p80 / floor),
                Measurement("topk", method, "extra memory", memory[name] / 2**20, "MiB", seed),
            ]
            if "matmul + topk" in found:
                same = (found[name] == found["matmul + topk"]).float().mean().item()
                rows.append(Measurement("topk", method, "labels as matmul + topk", 100 * same, "percent", seed))
            yield rows
