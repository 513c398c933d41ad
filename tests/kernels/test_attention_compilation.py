"""Attention's Triton kernels compile for real GPUs, with the shapes that they get there, on a machine that has none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

COMPILER = Path(__file__).parents[1] / "helpers" / "attention_compiler.py"
PLAIN, CAUSAL, FULL = (False, False, False, 1), (True, False, False, 3), (True, True, True, 3)
"""Causal, windowed, with dropout, and query heads for one of keys."""
KERNELS = ("forward", "query gradients", "key gradients")
Variant = tuple[str, str, int, bool, bool, bool, int]


def variants(dtype: str, sizes: tuple[int, ...], *options: tuple[bool, bool, bool, int]) -> dict[str, Variant]:
    return {
        f"{kernel} {dtype} {size} {given}": (kernel, dtype, size, *given)
        for kernel in KERNELS
        for size in sizes
        for given in options
    }


QUICK: dict[int, dict[str, Variant]] = {
    90: variants("bf16", (32, 64, 128), PLAIN, CAUSAL) | {"bounds": ("bounds", "bf16", 32, *PLAIN)},
}
ALL: dict[int, dict[str, Variant]] = {
    90: variants("bf16", (16, 80, 256), PLAIN, CAUSAL, FULL)
    | variants("bf16", (32, 64, 128), FULL)
    | variants("fp32", (32, 64, 128, 256), PLAIN, FULL),
    80: variants("bf16", (64, 256), PLAIN, FULL) | variants("fp32", (64, 256), PLAIN),
    120: variants("bf16", (64, 256), PLAIN, FULL),
}

SHARED_MEMORY = {80: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
"""Largest shared memory of a block, in bytes (CUDA C++ Programming Guide, table of compute capabilities): for 80 that of 8.6
and 8.9, which run the same shapes."""


def check(made_for: dict[int, dict[str, Variant]]) -> None:
    """No byte of stack, so nothing is spilled; shared memory that there is; matrix instructions of Hopper for 16 bits."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    wrong = []
    for capability, given in made_for.items():
        command = [sys.executable, str(COMPILER), str(capability), json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        for name, made in json.loads(done.stdout.splitlines()[-1]).items():
            kernel, dtype, size, *_ = given[name]
            matrices = capability == 90 and dtype != "fp32" and kernel != "bounds" and size <= 128
            fits = made["shared"] <= SHARED_MEMORY[capability] and made["registers"] * made["threads"] <= 65_536
            if made["stack"] or made["scratch"] or not fits or (matrices and not made["wgmma"]):
                wrong.append(f"{capability} {name}: {made}")
    assert not wrong, "\n".join(wrong)


linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler runs on Linux")


@linux
def test_kernels_compile_for_an_h100() -> None:
    check(QUICK)


@linux
@pytest.mark.slow
def test_kernels_compile_for_other_gpus_sizes_and_options() -> None:
    check(ALL)
