"""Compile kernels for a GPU that is not there, as a script: python triton_compiler.py DTYPE CAPABILITY PRECISION KERNELS.

KERNELS is JSON: name to (module, function, constants); what comes out is JSON: name to registers, stack, shared memory and
whether there are matrix instructions and bulk copies of Hopper. Triton compiles for real only where TRITON_INTERPRET is
not 1 when it is imported, hence a process of its own.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from xmc.kernels.reductions import REDUCTIONS
from xmc.kernels.triton_tiles.heuristics import Machine, storing_shape, tile_shape

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp8e4nv": torch.float8_e4m3fn}
INT64 = ("rows", "columns", "slots", "keys", "chosen", "groups", "numbers")
INT32 = ("words", "index")
FLOAT32 = (
    "shift",
    "scale",
    "values",
    "derivatives",
    "seconds",
    "group_counts",
    "group_places",
    "known_at",
    "totals",
    "rates",
    "solutions",
    "scores",
    "row_constant",
    "row_gradient",
    "pair_gradient",
    "maxima",
    "products",
    "query_scales",
    "label_scales",
    "scales",
)
ALIGNED = ("depth", "stride_q", "stride_z", "stride_g", "stride_k", "stride", "stride_out")


def compiled(module: str, name: str, constants: dict[str, Any], dtype: str, machine: Machine) -> dict[str, int]:
    """One kernel."""
    kernel = getattr(importlib.import_module(f"xmc.kernels.triton_tiles.{module}"), name)
    shape, described = tile_shape(DTYPES[dtype], machine), machine.bulk_copies
    shape = replace(shape, labels=constants.get("LABELS", shape.labels))
    wide = constants.pop("stored", "bf16" if dtype == "fp8e4nv" else dtype)
    if module == "gradient" or constants.get("KEPT"):
        shape = storing_shape(shape, DTYPES[dtype], DTYPES[wide], machine)
    product = "PRECISION" in kernel.arg_names
    warps = shape.warps if product else constants.pop("warps", 4)
    types = dict.fromkeys(INT64, "*i64") | dict.fromkeys(INT32, "*i32") | dict.fromkeys(FLOAT32, "*fp32")
    types |= {"bias": f"*{wide}", "queries": f"*{dtype}", "labels": f"*{dtype}", "gradients": f"*{wide}"}
    types |= {"weights": f"*{wide}", "matrix": f"*{dtype}"}
    types |= {"out": {"reduce": "*fp32", "eight_bit": "*fp8e4nv"}.get(module, f"*{wide}")}
    if described and product:
        types["queries"] = f"tensordesc<{dtype}[{shape.rows},{shape.depth}]>"
        types["labels"] = f"tensordesc<{dtype}[{shape.labels},{shape.depth}]>"
        types["gradients"] = types["weights"] = f"tensordesc<{wide}[{shape.rows},{shape.labels}]>"
    defaults: dict[str, Any] = {
        "DESCRIBED": described, "ROWS": shape.rows, "LABELS": shape.labels, "DEPTH": shape.depth, "GROUP": shape.group,
        "PRECISION": "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "SCALED": dtype == "fp8e4nv", "KEPT": False, "LARGEST": 448.0,
    }  # fmt: skip
    if "reduction" in constants:
        reduction = REDUCTIONS[constants["reduction"]]
        functions = importlib.import_module(str(reduction.device_module))
        defaults |= {"REDUCE_TILE": functions.reduce_tile, "SCORE_GRADIENT": functions.score_gradient}
        defaults |= {"TAKES_POSITIVES": reduction.takes_positives, "LOGARITHMIC": reduction.logarithmic}
        defaults |= {"SHIFTED": "shift" in reduction.__annotations__}
    absent = {"BIASED": ("bias",), "SHIFTED": ("shift", "derivatives"), "KEPT": ("weights",), "MASKED": ("words", "index"),
              "SCALED": ("query_scales", "label_scales")}  # fmt: skip
    defaults |= constants
    for given, pointers in absent.items():  # as at run time, where what is not given is None
        if given in kernel.arg_names and not defaults[given]:
            defaults |= dict.fromkeys(pointers)
    signature, values, aligned = {}, {}, {}
    for position, argument in enumerate(kernel.arg_names):
        if argument in defaults:
            signature[argument], values[(position,)] = "constexpr", defaults[argument]
        elif argument in types:
            signature[argument] = types[argument]
            if types[argument].startswith("*"):
                aligned[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "fp32" if argument in ("unit", "wanted") else "i32"
            if argument in ALIGNED:
                aligned[(position,)] = [["tt.divisibility", 16]]
    options = {"num_warps": warps, "num_stages": shape.stages} if product else {"num_warps": warps}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", machine.capability, 32), options=options)
    return {**resources(made.asm["cubin"]), **instructions(made), "threads": 32 * options["num_warps"]}


def resources(cubin: bytes) -> dict[str, int]:
    """Registers and stack of a compiled kernel."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(cubin)
        command = [TOOLS / "cuobjdump", "--dump-resource-usage", binary]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        name.lower(): int(report.split(f"{key}:")[1].split()[0])
        for name, key in (("registers", "REG"), ("stack", "STACK"))
    }


def instructions(made: Any) -> dict[str, int]:
    """Its memory, in bytes, and whether it has matrix instructions and bulk copies of Hopper."""
    ptx, memory = made.asm["ptx"], {"shared": made.metadata.shared, "scratch": made.metadata.global_scratch_size}
    return memory | {"wgmma": "wgmma" in ptx, "bulk": "cp.async.bulk.tensor" in ptx}


if __name__ == "__main__":
    dtype, capability, precision, kernels = sys.argv[1:]
    torch.set_float32_matmul_precision("highest" if precision == "ieee" else "high")
    machine = Machine(int(capability), 132)
    print(json.dumps({name: compiled(*given, dtype, machine) for name, given in json.loads(kernels).items()}))
