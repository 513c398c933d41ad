"""Compile attention's kernels for a GPU that is not there, as a script: python attention_compiler.py CAPABILITY VARIANTS.

VARIANTS is JSON: name to (kernel, dtype, head size, causal, windowed, dropped, group); what comes out is JSON: name to what
`triton_compiler` tells of a kernel.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton_compiler import DTYPES, instructions, resources

from xmc.kernels.attention.triton_kernels import backward, bounds, forward
from xmc.kernels.attention.triton_kernels.shapes import block_shape

KERNELS = {
    "forward": forward.attend,
    "query gradients": backward.query_gradients,
    "key gradients": backward.key_gradients,
    "bounds": bounds._bounds,
}
NUMBERS = ("tokens", "segments", "halvings", "window")
"""Integers of any value; others are multiples of 16, as strides of heads of such sizes are."""


def compiled(
    name: str, dtype: str, size: int, causal: bool, windowed: bool, dropped: bool, group: int, capability: int
) -> dict[str, int]:
    """One kernel."""
    kernel = KERNELS[name]
    padded = max(16, triton.next_power_of_2(size))
    shape = block_shape("forward" if name == "bounds" else name, DTYPES[dtype], padded, dropped=dropped)
    rows, keys = (shape.passing, shape.kept) if name == "key gradients" else (shape.kept, shape.passing)
    constants: dict[str, Any] = {
        "CAUSAL": causal, "WINDOWED": windowed, "DROPPED": dropped, "ROWS": rows, "KEYS": keys, "DEPTH": size, "SIZE": padded,
        "PRECISION": "ieee", "BLOCK": bounds.BLOCK,
    }  # fmt: skip
    if group == 1:  # which is constant at run time too, as is a missing seed
        constants["group"] = 1
    if not dropped:
        constants["seed"] = None
    types = {"bounds": "*i32", "offsets": "*i32", "seed": "*i64", "logsumexp": "*fp32", "inner": "*fp32"}
    types |= dict.fromkeys(("unit", "scale", "dropout"), "fp32")
    types |= dict.fromkeys(("query", "key", "value", "gradient", "out", "of_query", "of_key", "of_value"), f"*{dtype}")
    signature, values, aligned = {}, {}, {}
    for position, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument], values[(position,)] = "constexpr", constants[argument]
            continue
        signature[argument] = types.get(argument, "i32")
        if signature[argument] != "fp32" and argument not in (*NUMBERS, "group"):
            aligned[(position,)] = [["tt.divisibility", 16]]
    options = {"num_warps": shape.warps, "num_stages": shape.stages} if name != "bounds" else {"num_warps": 4}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {**resources(made.asm["cubin"]), **instructions(made), "threads": 32 * options["num_warps"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    capability, variants = sys.argv[1:]
    print(json.dumps({name: compiled(*given, int(capability)) for name, given in json.loads(variants).items()}))
