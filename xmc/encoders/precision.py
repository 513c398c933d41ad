"""In which precision encoders compute, where the configuration leaves it open: by what the device has instructions for."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["Computed", "Precision", "multiplies_bfloat16"]

Precision = Literal["auto", "float32", "bfloat16"]
"""What may be asked for; "auto" is bfloat16 for encoders of matrix products where the device multiplies it faster."""
Computed = Literal["float32", "bfloat16"]
"""What an encoder computes in."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions that multiply bfloat16 and sum in float32.

    They are NVIDIA's since Ampere, and AVX512-BF16 and AMX of x86 processors; on others torch emulates them, and is slower
    than in float32. Asked for by name, and not measured, so that a run computes the same however busy the machine is. On an
    AMD EPYC with AVX512-BF16 `nn.Linear` does 900 GFLOP/s in bfloat16, and 209 in float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
