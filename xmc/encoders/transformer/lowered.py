"""A working copy of a backbone in a lower precision, which computes in place of the one whose parameters are learned."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Lowered"]

Version = tuple[int, int, bool]
"""What tells whether a parameter is as it was: its version, where its numbers are, and whether it is learned."""


class Lowered:
    """The working copy of a backbone: parameters of `dtype`, its own buffers, and its own tables of embeddings.

    The backbone's parameters, the masters, stay what optimizers, checkpoints and ranks know; the copy is in none of their
    lists. Gradients of the copy add up in float32 over all micro-batches, and `collect` hands them to the masters. Buffers
    (such as the frequencies of rotary positions) are not lowered. Tables of embeddings are shared with the backbone, and what
    is looked up is rounded: a token that a thousand texts hold has its gradient summed in float32, not in eight bits; see
    `_keeps_precision`.

    It is made when it is first asked for, on the masters' device, and again after a move or a change of what is learned; it
    follows the masters' values and their training mode. Threads may compute with it at once. It is not copied nor pickled: a
    copy of the encoder makes its own.
    """

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        self.dtype = dtype
        self._lock = threading.Lock()
        self._copy: _WorkingCopy | None = None

    def module(self, backbone: nn.Module) -> nn.Module:
        """What computes in place of the backbone; its values are those of the backbone now, rounded."""
        held = self._copy
        if held is None or not held.is_current(backbone):
            with self._lock:
                held = self._renewed(backbone)
        if held.module.training != backbone.training:
            _follow_mode(held.module, backbone)
        return held.module

    def collect(self) -> None:
        """Add the copy's gradients to those of the masters, and forget them."""
        if self._copy is not None:
            self._copy.collect()

    def bytes_for(self, backbone: nn.Module) -> int:
        """Memory that the copy of a backbone takes beside it."""
        return sum(master.numel() * self.dtype.itemsize for master in _masters(backbone, self.dtype))

    def forget(self) -> None:
        """Make the copy anew when it is next asked for: to be called where the backbone's modules change."""
        self._copy = None

    def _renewed(self, backbone: nn.Module) -> _WorkingCopy:
        held = self._copy
        if held is None or not held.can_follow(backbone):
            held = _WorkingCopy(backbone, self.dtype)
        elif not held.is_current(backbone):
            held.refresh()
        self._copy = held
        return held

    def __deepcopy__(self, memo: dict[int, Any]) -> Lowered:
        return Lowered(self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return Lowered, (self.dtype,)


class _WorkingCopy:
    """A copy, its lowered parameters beside their masters, and the versions of these that it has."""

    def __init__(self, backbone: nn.Module, dtype: torch.dtype) -> None:
        self.backbone = backbone
        self.masters = _masters(backbone, dtype)
        self.versions = _versions(self.masters)
        with torch.inference_mode(False), torch.no_grad():
            self.lowered = [_lowered(master, dtype) for master in self.masters]
            shared = [*backbone.buffers(), *backbone.parameters()]
            memo: dict[int, Any] = {id(tensor): tensor for tensor in shared}
            memo |= {id(module): _Kept(module, dtype) for module in backbone.modules() if _keeps_precision(module)}
            memo |= {id(master): mine for master, mine in zip(self.masters, self.lowered, strict=True)}
            self.module: nn.Module = copy.deepcopy(backbone, memo)
        _compile_alike(self.module, backbone)
        _follow_mode(self.module, backbone)

    def can_follow(self, backbone: nn.Module) -> bool:
        """Whether it is of this backbone, which is where it was and learns what it did."""
        return self.backbone is backbone and all(
            mine.device == master.device and mine.requires_grad == master.requires_grad
            for mine, master in zip(self.lowered, self.masters, strict=True)
        )

    def is_current(self, backbone: nn.Module) -> bool:
        """Whether it has the values that the masters have now."""
        return self.backbone is backbone and self.versions == _versions(self.masters)

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the masters' values; gradients that were not collected are lost."""
        versions = _versions(self.masters)
        torch._foreach_copy_([*self.lowered], [*self.masters])
        self.versions = versions

    @torch.no_grad()
    def collect(self) -> None:
        """Add the gradients to the masters'."""
        for mine, master in zip(self.lowered, self.masters, strict=True):
            if mine.grad is None:
                continue
            gradient = mine.grad.to(master.dtype)
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            mine.grad = None
            self.versions = []  # they are about to change, and some optimizers do not count that


class _Kept(nn.Module):
    """A module that computes in its own precision: its input is taken up to that, its output is rounded."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    @property
    def weight(self) -> Tensor:
        """The module's weight, rounded, for models that read a table without looking anything up."""
        weight: Any = self.module.weight
        rounded: Tensor = weight.to(self.dtype)
        return rounded

    def forward(self, given: Tensor) -> Tensor:
        """What the module gives, in the lower precision."""
        if given.is_floating_point():
            weight: Any = self.module.weight
            given = given.to(weight.dtype)
        output: Tensor = self.module(given)
        return output.to(self.dtype)


def _keeps_precision(module: nn.Module) -> bool:
    """Whether a module's gradients need float32, since it sums up numbers of all tokens: tables of embeddings, and on a CPU
    LayerNorm, whose backward pass in bfloat16 adds to sums of bfloat16 there (torch 2.13: 4,096 ones make 256).
    """
    if isinstance(module, nn.Embedding):
        return True
    return isinstance(module, nn.LayerNorm) and module.elementwise_affine and module.weight.device.type == "cpu"


def _masters(backbone: nn.Module, dtype: torch.dtype) -> list[nn.Parameter]:
    """The parameters that a copy has lowered: not those of modules that keep their precision, nor those of `dtype` already."""
    kept = {id(p) for module in backbone.modules() if _keeps_precision(module) for p in module.parameters()}
    return [p for p in backbone.parameters() if id(p) not in kept and p.is_floating_point() and p.dtype != dtype]


def _versions(parameters: Sequence[nn.Parameter]) -> list[Version]:
    return [(0 if p.is_inference() else p._version, p.data_ptr(), p.requires_grad) for p in parameters]


def _lowered(master: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
    """A parameter with the master's values, rounded, whose gradient is of float32 and adds up there."""
    mine = nn.Parameter(master.detach().to(dtype), requires_grad=master.requires_grad)
    if master.requires_grad:
        mine.grad_dtype = torch.float32
    return mine


def _follow_mode(module: nn.Module, backbone: nn.Module) -> None:
    """Train or evaluate as the backbone does, part by part."""
    parts = dict(module.named_modules(remove_duplicate=False))
    for name, original in backbone.named_modules(remove_duplicate=False):
        parts[name].training = original.training


def _compile_alike(module: nn.Module, backbone: nn.Module) -> None:
    """Compile the copy where the backbone is compiled, whose compiled code is not copied with it."""
    if backbone._compiled_call_impl is not None:
        module.compile(dynamic=True)
