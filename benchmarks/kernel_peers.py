"""Peers of the kernels, where they are installed: linear cross entropy with one positive, and exact search.

Each function gives the peer's calls by name, none where the peer is not installed or knows no such device. That a peer
fails is found out when it is called. Interfaces are those of torch 2.13, cut-cross-entropy 25.1.1, liger-kernel 0.8.5,
quack-kernels 0.6.5, FAISS 1.14.1, cuVS 26.10 and flashlib 0.4.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from device_turns import reason
from torch import Tensor

__all__ = ["UNSEEN_MEMORY", "cross_entropies", "searches"]

LARGE_CHUNK = 1024
"""Rows of scores that a peer with chunks of rows holds at once, where its own choice is a few rows."""

FLASHLIB_MOST = 128
"""Largest k that flashlib is asked for: its kernel holds the k best of each row in registers."""

UNSEEN_MEMORY = ("faiss", "cuvs")
"""Beginnings of the names of peers that allocate memory which torch does not see."""

Loss = Callable[[], Tensor]
Search = Callable[[], tuple[Tensor, Tensor]]


def cross_entropies(queries: Tensor, labels: Tensor, targets: Tensor, temperature: float) -> dict[str, Loss]:
    """Mean cross entropy of queries [B, D] and labels [L, D] with one positive each, targets int64 [B]; scalars."""
    makers = (_cut_cross_entropy, _quack, _liger_scaled, _liger_hopper, _liger, _torch_fused)
    return _gathered(makers, queries, labels, targets, temperature)


def searches(queries: Tensor, labels: Tensor, k: int) -> dict[str, Search]:
    """The k labels of largest inner product: scores (or distances) and rows, both [B, k]."""
    return _gathered((_faiss_flat, _cuvs_brute_force, _flashlib), queries, labels, k)


def _gathered(makers: tuple[Callable[..., Iterator[tuple[str, Any]]], ...], *arguments: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for maker in makers:
        try:
            found.update(maker(*arguments))
        except Exception as error:
            print(f"{maker.__name__.strip('_')} left out: {reason(error)}", flush=True)
    return found


def _cut_cross_entropy(
    queries: Tensor, labels: Tensor, targets: Tensor, temperature: float
) -> Iterator[tuple[str, Loss]]:
    """Apple's kernel: by default it skips what hardly moves a gradient; without its filter it computes all."""
    if not find_spec("cut_cross_entropy"):
        return
    from cut_cross_entropy import linear_cross_entropy

    if not queries.is_cuda:  # its kernel runs on CUDA only
        yield (
            "cut-cross-entropy torch_compile",
            lambda: linear_cross_entropy(queries / temperature, labels, targets, impl="torch_compile"),
        )
        return
    yield (
        "cut-cross-entropy cce",
        lambda: linear_cross_entropy(queries / temperature, labels, targets, impl="cce"),
    )
    yield (
        "cut-cross-entropy cce, nothing skipped",
        lambda: linear_cross_entropy(queries / temperature, labels, targets, impl="cce", filter_eps=None),
    )


def _quack(queries: Tensor, labels: Tensor, targets: Tensor, temperature: float) -> Iterator[tuple[str, Loss]]:
    """Chunks of 4,096 queries; its fused backward pass on Hopper in bf16."""
    if not (find_spec("quack") and queries.is_cuda):
        return
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    yield "quack", lambda: chunked_linear_cross_entropy(queries / temperature, labels, targets)


def _liger_scaled(queries: Tensor, labels: Tensor, targets: Tensor, temperature: float) -> Iterator[tuple[str, Loss]]:
    """Liger's newest kernel, which holds no scores; on other devices than Hopper a fallback in torch, left out."""
    if not (find_spec("liger_kernel") and find_spec("cutlass") and _is_hopper(queries)):
        return
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction as Function

    yield "liger-kernel scaled", lambda: Function.apply(queries, labels, targets, temperature).mean()


def _liger_hopper(queries: Tensor, labels: Tensor, targets: Tensor, temperature: float) -> Iterator[tuple[str, Loss]]:
    """Liger's fused linear cross entropy for Hopper, which holds all scores in bf16."""
    if not (find_spec("liger_kernel") and find_spec("cutlass") and _is_hopper(queries)):
        return
    from liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy_sm90 import liger_fused_linear_cross_entropy_sm90

    yield (
        "liger-kernel sm90",
        lambda: liger_fused_linear_cross_entropy_sm90(queries / temperature, labels, targets),
    )


def _liger(queries: Tensor, labels: Tensor, targets: Tensor, temperature: float) -> Iterator[tuple[str, Loss]]:
    """Liger's Triton kernel: chunks of queries whose scores are as large as the queries, or of LARGE_CHUNK queries."""
    if not (find_spec("liger_kernel") and queries.is_cuda):
        return
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    scores = len(labels) * min(LARGE_CHUNK, len(queries))
    budget = -(-scores // (queries.shape[1] * len(queries)))
    yield (
        f"liger-kernel, {LARGE_CHUNK} rows",
        lambda: liger_fused_linear_cross_entropy(queries / temperature, labels, targets, chunk_mem_const=budget),
    )
    yield "liger-kernel", lambda: liger_fused_linear_cross_entropy(queries / temperature, labels, targets)


def _torch_fused(queries: Tensor, labels: Tensor, targets: Tensor, temperature: float) -> Iterator[tuple[str, Loss]]:
    """torch's own, since 2.13: chunks of queries by its own rule, and on CUDA of LARGE_CHUNK queries too."""
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        return
    options = {"torch linear_cross_entropy": torch.nn.LinearCrossEntropyOptions()}
    if queries.is_cuda:
        large = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=LARGE_CHUNK)
        options = {f"torch linear_cross_entropy, {LARGE_CHUNK} rows": large, **options}
    for name, chosen in options.items():
        yield (
            name,
            lambda chosen=chosen: torch.nn.functional.linear_cross_entropy(
                queries / temperature, labels, targets, options=chosen
            ),
        )


def _faiss_flat(queries: Tensor, labels: Tensor, k: int) -> Iterator[tuple[str, Search]]:
    """FAISS's brute force: on CUDA on the tensors as they are, on a CPU by its flat index."""
    if not find_spec("faiss"):
        return
    import faiss

    if not queries.is_cuda:
        index = faiss.IndexFlatIP(labels.shape[1])
        index.add(labels.float().numpy())
        asked: np.ndarray = queries.float().numpy()
        yield "faiss flat", lambda: tuple(torch.from_numpy(part) for part in index.search(asked, k))
    elif hasattr(faiss, "StandardGpuResources"):
        import faiss.contrib.torch_utils  # faiss.knn_gpu takes tensors from here on

        resources = faiss.StandardGpuResources()
        yield "faiss flat", lambda: faiss.knn_gpu(resources, queries, labels, k, metric=faiss.METRIC_INNER_PRODUCT)


def _cuvs_brute_force(queries: Tensor, labels: Tensor, k: int) -> Iterator[tuple[str, Search]]:
    """cuVS, which knows float32 and float16: bf16 is given to it as float16."""
    if not (find_spec("cuvs") and queries.is_cuda):
        return
    from cuvs.neighbors import brute_force

    dtype = torch.float32 if queries.dtype == torch.float32 else torch.float16
    asked, held = queries.to(dtype), labels.to(dtype)
    torch.cuda.synchronize()  # cuVS works on a stream of its own
    index = brute_force.build(held, metric="inner_product")

    def search() -> tuple[Tensor, Tensor]:
        assert len(held)  # the index is a view of it
        scores = torch.empty(len(asked), k, device=asked.device)
        rows = torch.empty(len(asked), k, dtype=torch.int64, device=asked.device)
        brute_force.search(index, asked, k, neighbors=rows, distances=scores)
        return scores, rows

    yield f"cuvs brute force, {'fp32' if dtype == torch.float32 else 'fp16'}", search


def _flashlib(queries: Tensor, labels: Tensor, k: int) -> Iterator[tuple[str, Search]]:
    """flashlib knows squared distances only: on unit vectors the same order, but for rounding of the norms."""
    if not (find_spec("flashlib") and queries.is_cuda):
        return
    if k > FLASHLIB_MOST:
        raise ValueError(f"not asked for more than {FLASHLIB_MOST} labels, which its kernel holds in registers.")
    from flashlib import flash_knn

    yield "flashlib knn, squared distance", lambda: flash_knn(queries, labels, k)


def _is_hopper(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) == (9, 0)
