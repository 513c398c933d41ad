"""Every Triton kernel compiles for real GPUs, with the shapes that they get there, on a machine that has none.

What the interpreter runs is the kernels' mathematics; here they go through Triton's compiler and the assembler.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from xmc.kernels.reductions import REDUCTIONS

pytest.importorskip("triton", reason="triton is not installed; pip install triton")

COMPILE = """
import importlib, json, subprocess, sys, tempfile
from pathlib import Path
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from xmc.kernels.reductions import REDUCTIONS
from xmc.kernels.triton_tiles.heuristics import tile_shape

dtype, capability = sys.argv[1], int(sys.argv[2])
number = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def compiled(module, name, extra):
    kernel = getattr(importlib.import_module(f"xmc.kernels.triton_tiles.{module}"), name)
    heavy = extra.pop("heavy", False)
    if "reduction" in extra:
        reduction = REDUCTIONS[extra.pop("reduction")]
        functions = importlib.import_module(reduction.device_module)
        extra |= {"REDUCE_TILE": functions.reduce_tile, "SCORE_GRADIENT": functions.score_gradient}
        extra |= {"TAKES_POSITIVES": reduction.takes_positives, "SHIFTED": "shift" in reduction.__annotations__}
        heavy = reduction.heavy
    shape = tile_shape(number, heavy=heavy)
    constants = {
        "ROWS": shape.rows, "LABELS": shape.labels, "DEPTH": shape.depth, "GROUP": shape.group, "PRECISION": "ieee",
        "stride_qd": 1, "stride_zd": 1, "stride_on": 1, "stride_rn": 1,
        **extra,
    }
    int64 = ["order", "offsets", "entry_rows", "entry_columns", "entry_slots", "tile_blocks", "tile_numbers", "blocks"]
    own = ["queries", "labels", "bias", "gradients", "left", "right"]
    pointers = {name: "*i64" for name in [*int64, "candidates"]} | {name: f"*{dtype}" for name in own}
    pointers |= {"counts": "*i32" if module == "topk" else "*i64", "flag": "*i32"}
    float32 = ["shift", "values", "derivatives", "positive_scores", "threshold", "row_constant", "row_gradient"]
    pointers |= {name: "*fp32" for name in [*float32, "positive_gradient", "out"]}
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
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(made.asm["cubin"])
        command = [tools / "cuobjdump", "--dump-resource-usage", binary]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    stack = int(report.split("STACK:")[1].split()[0])
    return {"shared": made.metadata.shared, "wgmma": "wgmma" in made.asm["ptx"], "stack": stack}


print(json.dumps({key: compiled(*arguments) for key, arguments in json.loads(sys.argv[3]).items()}))
"""

KERNELS: dict[str, tuple[str, str, dict[str, object]]] = {
    **{
        f"{name}{' with bias' if biased else ''}": (
            "reduce",
            "_reduce_scores",
            {"reduction": name, "ORDERED": False, "BIASED": biased},
        )
        for name in REDUCTIONS
        for biased in (False, True)
    },
    **{
        f"gradient of {name}": ("gradient", "_score_gradients", {"reduction": name, "BIASED": False})
        for name in REDUCTIONS
    },
    "topk": ("topk", "_collect", {"BIASED": False, "UPCAST": False, "heavy": True}),
}
TARGETS = [("bf16", 90), ("fp32", 80)]
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
"""Largest shared memory of a block, in bytes (CUDA C++ Programming Guide, table of compute capabilities)."""


Made = dict[tuple[str, int], dict[str, dict[str, int]]]


@pytest.fixture(scope="module")
def made() -> Made:
    """Everything compiled, one process a target."""
    if sys.platform != "linux":
        pytest.skip("Triton's compiler runs on Linux")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    running = {
        target: subprocess.Popen(
            [sys.executable, "-c", COMPILE, *map(str, target), json.dumps(KERNELS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for target in TARGETS
    }
    found = {}
    for target, process in running.items():
        out, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        found[target] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_compiles(kernel: str, target: tuple[str, int], made: Made) -> None:
    """It fits the GPU's shared memory, spills next to nothing, and uses Hopper's matrix instructions for bfloat16."""
    one = made[target][kernel]
    assert one["shared"] <= SHARED_MEMORY[target[1]]
    assert one["stack"] <= 256
    assert one["wgmma"] == (target[1] == 90)
