"""Every Triton kernel compiles for real GPUs, with the shapes that they get there, on a machine that has none.

What the interpreter runs is the kernels' mathematics; here they go through Triton's compiler and the assembler, which tell
the registers, the spilled bytes, the shared memory and the instructions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xmc.kernels.reductions import REDUCTIONS

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

COMPILER = Path(__file__).parents[1] / "helpers" / "triton_compiler.py"

KERNELS: dict[str, tuple[str, str, dict[str, object]]] = {
    **{
        f"{name}{' with bias and masks' if full else ''}": (
            "reduce",
            "_reduce_scores",
            {"reduction": name, "BIASED": full, "MASKED": full},
        )
        for name in REDUCTIONS
        for full in (False, True)
    },
    **{
        f"gradient of {name}{' with bias' if biased else ''}": (
            "gradient",
            "_score_gradients",
            {"reduction": name, "BIASED": biased},
        )
        for name in REDUCTIONS
        for biased in (False, True)
    },
    **{
        f"maxima of {size}{' with bias' if biased else ''}{' and masks' if masked else ''}": (
            "maxima",
            "_product_maxima",
            {"SIZE": size, "BIASED": biased, "MASKED": masked},
        )
        for size in (4, 8, 32)
        for biased, masked in ((False, False), (True, False), (True, True))
    },
    **{
        f"moments of {blocks} {'narrow ' if narrow else ''}blocks{' with bias and masks' if full else ''}": (
            "blocks",
            "_block_moments",
            {"BLOCKS": blocks, "BIASED": full, "MASKED": full, **narrow},
        )
        for blocks, narrow in ((1, {}), (1, {"LABELS": 64}), (8, {"LABELS": 64}), (64, {"LABELS": 64}))
        for full in (False, True)
    },
}
"""Product kernels: module, function and what is constant in it."""

ONE_TILE = {
    f"{function} of one tile": (module, function, {**given, "count": 1, "total": 1, "row_blocks": 1, "label_tiles": 1})
    for module, function, given in list(KERNELS.values())[::4]
}
"""Numbers that are 1 are constant at run time too; such kernels must compile, and may spill: they have one pair to score."""

KEEPING: dict[str, tuple[str, str, dict[str, object]]] = {
    f"{name}, weights kept": (
        "reduce",
        "_reduce_scores",
        {"reduction": name, "BIASED": False, "MASKED": True, "KEPT": True},
    )
    for name in REDUCTIONS
}

STORING_FLOAT32: dict[str, tuple[str, str, dict[str, object]]] = {
    f"gradient of {name} in float32": (
        "gradient",
        "_score_gradients",
        {"reduction": name, "BIASED": True, "stored": "fp32"},
    )
    for name in REDUCTIONS
}
"""Of sums in eight bits of float32 embeddings."""

SMALL_KERNELS: dict[str, tuple[str, str, dict[str, object]]] = {
    "combine logarithms": ("reduce", "_combine_tiles", {"LOGARITHMS": True, "ROWS": 32, "TILES": 64}),
    "combine sums": ("reduce", "_combine_tiles", {"LOGARITHMS": False, "ROWS": 32, "TILES": 64}),
    "rows in eight bits": ("eight_bit", "_eight_bit_rows", {"ROWS": 8, "DEPTH": 128}),
    **{
        f"kept gradients{', logarithms' if logarithmic else ''}": (
            "kept",
            "_kept_gradients",
            {"LOGARITHMIC": logarithmic, "ROWS": 32, "COLUMNS": 128},
        )
        for logarithmic in (False, True)
    },
    "claim masks": ("masks", "_claim", {"KEEP_POSITIVES": True, "BLOCK": 256}),
    "mark masks": ("masks", "_mark", {"KEEP_POSITIVES": False, "BLOCK": 256}),
    "scores of pairs": ("pairs", "_pair_scores", {"BIASED": True, "BLOCK": 16, "DEPTH": 64}),
    **{
        f"gradients of pairs, {name}": ("pairs", "_put_pair_gradients", {"reduction": name, "BLOCK": 256})
        for name in REDUCTIONS
    },
    **{
        f"maxima of {size}, stored products": (
            "maxima",
            "_tile_maxima",
            {"SIZE": size, "BIASED": True, "MASKED": True, "warps": 8},
        )
        for size in (4, 16)
    },
    **{
        f"{name} of {block}": ("selection", name, {"BLOCK": block, "BLOCKS": 1024 // block})
        for name in ("_block_keys", "_member_keys")
        for block in (1, 64)
    },
    "curves": ("curves", "_solve", {"ROWS": 4, "GROUPS": 128, "HALVINGS": 32}),
    "unpacked keys": ("keys", "_unpack", {"BLOCK": 1024}),
    "candidates": (
        "candidates",
        "_candidate_keys",
        {"SIZE": 8, "BIASED": True, "MASKED": True, "BLOCK": 32, "DEPTH": 128, "stride_zd": 1},
    ),
}

TARGETS = {
    ("bf16", 90, "ieee"): KERNELS | KEEPING | ONE_TILE | SMALL_KERNELS,
    ("fp8e4nv", 90, "ieee"): KERNELS | STORING_FLOAT32,
    ("fp32", 90, "ieee"): KERNELS | KEEPING,
    ("fp32", 90, "tf32"): KERNELS | KEEPING,
    ("bf16", 80, "ieee"): KERNELS | KEEPING,
    ("bf16", 120, "ieee"): KERNELS,
    ("fp32", 80, "tf32"): KERNELS | {name: made for name, made in SMALL_KERNELS.items() if "eight bits" not in name},
}
"""Kernels that are compiled for a dtype, a capability and a precision of float32."""
PRODUCTS = [(target, name) for target, kernels in TARGETS.items() for name in kernels if name not in SMALL_KERNELS]
SMALL = [(target, name) for target, kernels in TARGETS.items() for name in kernels if name in SMALL_KERNELS]

SHARED_MEMORY = {80: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
"""Largest shared memory of a block, in bytes (CUDA C++ Programming Guide, table of compute capabilities): for 80 that of 8.6
and 8.9, which run the same shapes."""
REGISTERS = 65_536
"""Registers of a multiprocessor, of both capabilities."""

Made = dict[tuple[str, int, str], dict[str, dict[str, int]]]


@pytest.fixture(scope="module")
def made() -> Made:
    """Everything compiled, two processes at a time."""
    if sys.platform != "linux":
        pytest.skip("Triton's compiler runs on Linux")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    found: Made = {}
    targets = list(TARGETS)
    for pair in (targets[:2], targets[2:4], targets[4:6], targets[6:]):
        running = {
            target: subprocess.Popen(
                [sys.executable, COMPILER, *map(str, target), json.dumps(TARGETS[target])],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for target in pair
        }
        for target, process in running.items():
            out, errors = process.communicate()
            assert process.returncode == 0, errors[-3000:]
            found[target] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.parametrize(("target", "kernel"), PRODUCTS, ids=str)
def test_product_kernels(target: tuple[str, int, str], kernel: str, made: Made) -> None:
    """No byte of stack, so nothing is spilled; bulk copies from Hopper on; its matrix instructions but for exact float32."""
    one, (dtype, capability, precision) = made[target][kernel], target
    assert one["stack"] == 0 or kernel in ONE_TILE
    assert one["shared"] <= SHARED_MEMORY[capability]
    assert one["scratch"] == 0  # which would be asked of an allocator that the caller has to set
    assert one["registers"] * one["threads"] <= REGISTERS
    assert one["bulk"] == (capability >= 90)
    assert one["wgmma"] == (capability == 90 and (dtype, precision) != ("fp32", "ieee"))


@pytest.mark.parametrize(("target", "kernel"), SMALL, ids=str)
def test_small_kernels(target: tuple[str, int, str], kernel: str, made: Made) -> None:
    assert made[target][kernel]["stack"] == 0
