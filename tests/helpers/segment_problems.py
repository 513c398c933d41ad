"""Packed runs of tokens for tests of attention: values and gradients of an implementation, of plain torch, and the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from random_kernel_inputs import DEVIATIONS
from torch import Tensor
from torch.nn import functional

from xmc.kernels.attention import reference, segment_attention
from xmc.kernels.attention.options import AttentionOptions, visible

RAGGED = [0, 3, 3, 1, 0, 9, 3, 0, 21, 2, 1, 0]
"""Lengths with empty segments at both ends and next to each other, and equal ones that are no neighbours."""

NAMES = ("values", "of query", "of key", "of value")


@dataclass
class Run:
    """Query, key, value and the incoming gradient of a run of segments."""

    tensors: tuple[Tensor, Tensor, Tensor]
    incoming: Tensor
    offsets: Tensor
    longest: int
    options: dict[str, Any]

    @classmethod
    def random(cls, lengths: Sequence[int], heads: int, groups: int, size: int, seed: int = 0, **options: Any) -> Run:
        """In float64."""
        generator = torch.Generator().manual_seed(seed)
        query, key, value, incoming = (
            torch.randn(sum(lengths), number, size, generator=generator, dtype=torch.float64)
            for number in (heads, groups, groups, heads)
        )
        offsets = torch.tensor([0, *lengths]).cumsum(0).int()
        return cls((query, key, value), incoming, offsets, max(lengths, default=0), options)

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Run:
        """As an implementation gets it: in its dtype and on its device."""
        query, key, value = (tensor.to(device, dtype) for tensor in self.tensors)
        return Run(
            (query, key, value), self.incoming.to(device, dtype), self.offsets.to(device), self.longest, self.options
        )

    def evaluate(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> list[Tensor]:
        """Values of a function of query, key and value, and its three gradients."""
        leaves = [tensor.clone().requires_grad_() for tensor in self.tensors]
        out = function(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, self.incoming.to(out.dtype))]

    def actual(self, **options: Any) -> list[Tensor]:
        """What `segment_attention` makes of it."""
        options = self.options | options
        return self.evaluate(lambda q, k, v: segment_attention(q, k, v, self.offsets, self.longest, **options))

    def actual_values(self, **options: Any) -> Tensor:
        """The values alone, of tensors that need no gradients."""
        return segment_attention(*self.tensors, self.offsets, self.longest, **self.options | options)

    def truth(self, kept: Tensor | None = None) -> list[Tensor]:
        """What the float64 reference makes of it."""
        options = self.parsed
        return self.evaluate(lambda q, k, v: reference.segment_attention(q, k, v, self.offsets, options, kept))

    def plain(self) -> list[Tensor]:
        """What torch's attention makes of one segment after the other, in the dtype of the tensors."""
        return self.evaluate(self._plain)

    def probabilities(self) -> Tensor:
        """Of each head and token i that of each token j, [H, T, T], read off values that are the identity."""
        query, key, value = self.tensors
        tokens = len(query)
        identity = torch.eye(tokens, dtype=value.dtype, device=value.device)[:, None].expand(-1, key.shape[1], -1)
        return reference.segment_attention(query, key, identity, self.offsets, self.parsed).transpose(0, 1)

    @property
    def parsed(self) -> AttentionOptions:
        """The options as the implementations get them."""
        scale = self.options.get("scale", self.tensors[0].shape[2] ** -0.5)
        window, dropout = self.options.get("window") or 0, self.options.get("dropout", 0.0)
        return AttentionOptions(self.options.get("causal", False), scale, window, dropout)

    def _plain(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts, group = [], query.shape[1] // key.shape[1]
        for first, last in zip(self.offsets.tolist(), self.offsets.tolist()[1:], strict=False):
            if first < last:
                heads = [tensor[first:last].transpose(0, 1) for tensor in (query, key, value)]
                heads[1:] = [tensor.repeat_interleave(group, 0) for tensor in heads[1:]]
                places = torch.arange(last - first, device=query.device)
                mask = visible(places, places, self.parsed)
                out = functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=self.parsed.scale)
                parts.append(out.transpose(0, 1))
        return torch.cat(parts)


def rounding_noise(run: Run) -> list[float]:
    """The standard deviation that roundings inside of an implementation give each tensor of `NAMES`; the largest.

    Flash attention rounds values before the backward pass reads them, and rounds probabilities P and the scores' gradients dS
    before it multiplies them. A rounding to a precision ε moves a number by a part of at most ε/2, with a standard deviation
    of ε/√12 of it at most, and numbers of a sum independently. The values o are in dS = P (dP - g·o).
    """
    dtype, exact = run.tensors[0].dtype, run.to(torch.float64, run.offsets.device.type)
    query, key, value = exact.tensors
    incoming, group, scale = exact.incoming, query.shape[1] // key.shape[1], run.parsed.scale
    k, v = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    probabilities = exact.probabilities()
    values = torch.einsum("hij,jhd->ihd", probabilities, v)
    inner = (incoming * values).sum(-1).T[:, :, None]
    of_scores = probabilities * (torch.einsum("ihd,jhd->hij", incoming, v) - inner)
    of_inner = (incoming * values).square().sum(-1).T  # variances [H, T], over ε²/12 as all of them
    squares, weights = of_scores.square(), probabilities.square()
    of_values = torch.einsum("hij,jhd->ihd", weights, v.square())
    of_query = torch.einsum("hij,jhd->ihd", squares, k.square())
    of_query += torch.einsum("hij,jhd->ihd", probabilities, k).square() * of_inner.T[:, :, None]
    of_key = torch.einsum("hij,ihd->jhd", squares + weights * of_inner[:, :, None], query.square())
    of_value = torch.einsum("hij,ihd->jhd", weights, incoming.square())
    of_key, of_value = (tensor.unflatten(1, (-1, group)).sum(2) for tensor in (of_key, of_value))
    unit, factors = torch.finfo(dtype).eps / 12**0.5, (1.0, scale, scale, 1.0)
    variances = (of_values, of_query, of_key, of_value)
    return [unit * factor * float(one.max()) ** 0.5 for one, factor in zip(variances, factors, strict=True)]


def assert_no_worse(run: Run, actual: list[Tensor], slack: float = 8.0) -> None:
    """Each tensor is as near to the truth as plain torch in the same dtype, plus a small term.

    That is some units of float32 rounding, and one rounding to the tensor's own dtype. Plain torch may be lucky, and does not
    round where flash attention does: as much as DEVIATIONS of `rounding_noise` is allowed in any case.
    """
    truth, noise = run.to(torch.float64, run.offsets.device.type).truth(), rounding_noise(run)
    for name, tensor, other, exact, deviation in zip(NAMES, actual, run.plain(), truth, noise, strict=True):
        assert tensor.dtype == other.dtype
        assert tensor.shape == exact.shape
        error, of_plain = (float((found.double() - exact).abs().max()) for found in (tensor, other))
        units = slack * torch.finfo(torch.float32).eps + torch.finfo(tensor.dtype).eps / 2
        allowed = max(of_plain, DEVIATIONS * deviation) + units * float(exact.abs().max())
        assert error <= allowed, f"{name}: {error} > {allowed}"
