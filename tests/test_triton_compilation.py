"""Every Triton kernel compiles for real GPUs, with the shapes that they get there, on a machine that has none.

What the interpreter runs is the kernels' mathematics; here they go through Triton's compiler and the assembler.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import importlib, json, subprocess, sys, tempfile
from pathlib import Path
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from xmc.kernels.triton_tiles.heuristics import product_columns, product_step, tile_shape

module, name, dtype, capability, extra = *sys.argv[1:4], int(sys.argv[4]), json.loads(sys.argv[5])
kernel = getattr(importlib.import_module(f"xmc.kernels.triton_tiles.{module}"), name)
number = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
shape = tile_shape(number, heavy=extra.pop("heavy", False))
constants = {
    "ROWS": shape.rows, "LABELS": shape.labels, "DEPTH": shape.depth, "GROUP": shape.group, "PRECISION": "ieee",
    "stride_qd": 1, "stride_zd": 1, "stride_on": 1, "stride_rn": 1,
    "INNER": shape.labels, "COLUMNS": product_columns(), "STEP": product_step(number), **extra,
}
if extra.pop("transposed", False):
    constants |= {"ROWS": shape.labels, "INNER": shape.rows, "stride_lm": 1}
int64 = ["order", "offsets", "entry_rows", "entry_columns", "entry_slots", "tile_blocks", "tile_numbers", "blocks"]
own = ["queries", "labels", "bias", "gradients", "left", "right"]
pointers = {name: "*i64" for name in [*int64, "candidates"]} | {name: f"*{dtype}" for name in own}
pointers |= {"counts": "*i32" if module == "topk" else "*i64", "flag": "*i32"}
pointers |= {
    name: "*fp32"
    for name in ("shift", "values", "derivatives", "positive_scores", "threshold", "row_constant", "row_gradient",
                 "positive_gradient", "out")
}
signature, values, aligned = {}, {}, {}
for position, name in enumerate(kernel.arg_names):
    if name in constants:
        signature[name], values[(position,)] = "constexpr", constants[name]
    elif name in pointers:
        signature[name], aligned[(position,)] = pointers[name], [["tt.divisibility", 16]]
    else:
        signature[name] = "fp32" if name in ("scale", "slope") else "i32"
        if name in ("depth", "stride_qb", "stride_zl"):
            aligned[(position,)] = [["tt.divisibility", 16]]
source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
options = {"num_warps": shape.warps, "num_stages": shape.stages}
made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
with tempfile.TemporaryDirectory() as folder:
    binary = Path(folder) / "kernel.cubin"
    binary.write_bytes(made.asm["cubin"])
    report = subprocess.run([tools / "cuobjdump", "--dump-resource-usage", binary], capture_output=True, text=True).stdout
print(json.dumps({"shared": made.metadata.shared, "ptx": "wgmma" in made.asm["ptx"], "report": report}))
"""

KERNELS = [
    pytest.param("reduce", "_reduce_scores", {"KIND": 0, "ORDERED": True, "BIASED": False}, id="logsumexp"),
    pytest.param("reduce", "_reduce_scores", {"KIND": 1, "ORDERED": True, "BIASED": True}, id="sigmoid"),
    pytest.param(
        "reduce", "_reduce_scores", {"KIND": 2, "ORDERED": False, "BIASED": True, "heavy": True}, id="softplus"
    ),
    pytest.param("gradient", "_score_gradients", {"KIND": 0, "BIASED": False}, id="gradient"),
    pytest.param("topk", "_collect", {"BIASED": False, "UPCAST": False, "heavy": True}, id="topk"),
    pytest.param("block_sparse", "_block_sparse_matmul", {"ADD": True, "stride_lk": 1}, id="dQ"),
    pytest.param("block_sparse", "_block_sparse_matmul", {"ADD": False, "transposed": True}, id="dZ"),
]
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
"""Largest shared memory of a block, in bytes (CUDA C++ Programming Guide, table of compute capabilities)."""


@pytest.mark.parametrize(("module", "name", "extra"), KERNELS)
@pytest.mark.parametrize(("dtype", "capability"), [("bf16", 90), ("fp32", 80)])
def test_compiles(module: str, name: str, extra: dict[str, object], dtype: str, capability: int) -> None:
    """It fits the GPU's shared memory, spills next to nothing, and uses Hopper's matrix instructions for bfloat16."""
    if sys.platform != "linux":
        pytest.skip("Triton's compiler runs on Linux")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    arguments = [module, name, dtype, str(capability), json.dumps(extra)]
    run = subprocess.run([sys.executable, "-c", COMPILE, *arguments], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    made = json.loads(run.stdout.splitlines()[-1])
    assert made["shared"] <= SHARED_MEMORY[capability]
    stack = int(made["report"].split("STACK:")[1].split()[0])
    assert stack <= 256, made["report"]
    assert made["ptx"] == (capability == 90)
