"""Attention within the segments of a packed run of tokens.

`attend` is the public function and `choice` says what computes a call. `reference` is the float64 truth. `operator` makes one
opaque operator of PyTorch of the rest: `grouped` for CPUs, which takes segments of equal length together as `pieces` lays
down, and computes a piece by PyTorch's fused kernel (`fused`) or, with dropout, by matrix products (`explicit`); and
`triton_kernels` for GPUs, where PyTorch's own attention over segments does not fit.
"""

from xmc.kernels.attention.attend import segment_attention

__all__ = ["segment_attention"]
