"""Small products by each library, on the processor or a GPU: `python -m xmc.doctor.probes NAME` tries one and prints JSON.

A probe runs in a process of its own, since a library that does not fit the machine may end the process instead of raising.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["PROBES", "Seen"]

Seen = dict[str, Any]
"""What a probe saw: JSON values. "product" is whether its product is right; without it, there was nothing to try."""
SIDE = 64
"""Rows and columns of the matrices that are multiplied."""
CLOSE = 1e-3
"""A product of small whole numbers is exact in float32; the GPU's tensor cores may round its factors."""


def torch_on_cpu() -> Seen:
    """A product by torch on the processor, and what CUDA the build is for."""
    import torch

    return {"cuda": torch.version.cuda, "hip": torch.version.hip, "product": _torch_product(torch, "cpu")}


def torch_on_gpu() -> Seen:
    """A product by torch on each GPU that it sees."""
    import torch

    if not torch.cuda.is_available():
        return {"gpus": []}
    count = torch.cuda.device_count()
    gpus = [
        {"name": torch.cuda.get_device_name(number), "memory": torch.cuda.get_device_properties(number).total_memory}
        for number in range(count)
    ]
    return {"gpus": gpus, "product": all(_torch_product(torch, f"cuda:{number}") for number in range(count))}


def triton() -> Seen:
    """A product by a Triton kernel: on the GPU where there is one, else in Triton's interpreter."""
    import torch

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton decorates a kernel
    from xmc.doctor.triton_probe import product

    left, right = _factors(torch)
    device = "cuda" if on_gpu else "cpu"
    found = product(left.to(device), right.to(device)).cpu()
    return {"where": "GPU" if on_gpu else "interpreter", "product": bool((found - left @ right).abs().max() < CLOSE)}


def faiss_on_cpu() -> Seen:
    """A search by FAISS on the processor, and what its build has."""
    import faiss

    index = faiss.IndexFlatIP(8)
    options = {"gpu": hasattr(faiss, "StandardGpuResources"), "cuvs": hasattr(faiss, "GpuIndexCagra")}
    return {"version": faiss.__version__, **options, "product": _faiss_finds(index)}


def faiss_on_gpu() -> Seen:
    """A search by FAISS on the first GPU, where its build and the machine have one."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return {"gpus": 0}
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(64 << 20)
    index = faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatIP(8))
    return {"gpus": faiss.get_num_gpus(), "product": _faiss_finds(index)}


def _factors(torch: Any) -> Any:
    numbers = torch.arange(SIDE * SIDE, dtype=torch.float32).reshape(SIDE, SIDE)
    return numbers % 7 - 3, numbers % 5 - 2


def _torch_product(torch: Any, device: str) -> bool:
    left, right = _factors(torch)
    found = (left.to(device) @ right.to(device)).cpu()
    true = (left.long()[:, :, None] * right.long()[None]).sum(1)
    return bool((found - true).abs().max() < CLOSE)


def _faiss_finds(index: Any) -> bool:
    """Whether each unit vector finds itself in an index of dimension 8."""
    import numpy as np

    vectors = np.eye(8, dtype=np.float32)
    index.add(vectors)
    return bool(np.array_equal(index.search(vectors, 1)[1].ravel(), np.arange(8)))


PROBES: dict[str, Callable[[], Seen]] = {
    "torch on the processor": torch_on_cpu,
    "torch on a GPU": torch_on_gpu,
    "triton": triton,
    "FAISS on the processor": faiss_on_cpu,
    "FAISS on a GPU": faiss_on_gpu,
}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]]()))
