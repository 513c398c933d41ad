"""How the segments of a run are cut into pieces, each a batch of equal problems."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xmc.errors import InputError
from xmc.kernels.attention.options import AttentionOptions

__all__ = ["Piece", "Runs", "checked_edges", "pieces_of"]

WINDOW_ROWS = 128
"""Rows of a piece where a window hides tokens: the keys that they see are about this number and the window."""

SCORES = 2**20
"""Scores of a piece at most, of all heads, where they are written to memory, unless one row of a segment has more."""


def checked_edges(offsets: Tensor, tokens: int, longest: int) -> npt.NDArray[np.int64]:
    """The offsets [n + 1] of segments on the host; a read of their values.

    Raises InputError for offsets that do not rise from 0 to `tokens`, and for a segment of more than `longest` tokens.
    """
    edges = offsets.cpu().numpy().astype(np.int64)
    lengths = np.diff(edges)
    if len(edges) == 0 or edges[0] != 0 or edges[-1] != tokens or (lengths < 0).any():
        raise InputError(
            f"offsets must rise from 0 to the number of tokens, {tokens}, but are {edges.tolist()[:8]}"
            f"{f' ... {edges[-1]}' if len(edges) > 8 else ''}."
        )
    if lengths.max(initial=0) > longest:
        raise InputError(f"longest is {longest}, but a segment has {lengths.max()} tokens; give an upper bound.")
    return edges


@dataclass(frozen=True)
class Runs:
    """Segments in an order in which equal lengths are neighbours.

    order: int64 [T], the token at each place of that order; None where it is the order of the run itself.
    runs: of each run of equal segments the place of its first token, the number of segments, and their length.
    """

    order: Tensor | None
    runs: tuple[tuple[int, int, int], ...]

    @classmethod
    def from_offsets(cls, offsets: Tensor, tokens: int, longest: int) -> Runs:
        """The runs of the segments between offsets [n + 1]; errors of `checked_edges`."""
        edges = checked_edges(offsets, tokens, longest)
        lengths = np.diff(edges)
        starts, lengths = edges[:-1][lengths > 0], lengths[lengths > 0]
        order = None
        if (np.diff(lengths) != 0).sum() >= len(np.unique(lengths)):
            by_length = np.argsort(lengths, kind="stable")
            starts, lengths = starts[by_length], lengths[by_length]
            order = torch.from_numpy(_tokens(starts, lengths)).to(offsets.device)
        return cls(order, tuple(_equal_neighbours(lengths.tolist())))

    def arranged(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows of a tensor [T, ...] in this order, in a dtype, the last dimension contiguous."""
        tensor = (tensor if self.order is None else tensor.index_select(0, self.order)).to(dtype)
        return tensor if tensor.stride(-1) == 1 else tensor.contiguous()

    def restored(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """The inverse of `arranged`."""
        tensor = tensor.to(dtype)
        return tensor if self.order is None else torch.empty_like(tensor).index_copy_(0, self.order, tensor)


def _tokens(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The tokens of segments with these starts and lengths, one segment after the other."""
    places = np.cumsum(lengths) - lengths
    return np.repeat(starts - places, lengths) + np.arange(lengths.sum())


def _equal_neighbours(lengths: list[int]) -> Iterator[tuple[int, int, int]]:
    place = 0
    for length, members in groupby(lengths):
        count = len(list(members))
        yield place, count, length
        place += count * length


@dataclass(frozen=True)
class Piece:
    """`count` segments of one length from place `first` on: rows `top` to `bottom` of each look at keys `left` to `right`."""

    first: int
    count: int
    length: int
    top: int
    bottom: int
    left: int
    right: int

    @property
    def all_rows(self) -> bool:
        """Whether these are all rows of the segments, so that no other piece has anything to add to their keys."""
        return self.bottom - self.top == self.length

    def rows(self, tensor: Tensor) -> Tensor:
        """A view [count, H, rows, ...] of the rows of a tensor [T, H, ...]."""
        return self.segments(tensor)[:, self.top : self.bottom].transpose(1, 2)

    def keys(self, tensor: Tensor) -> Tensor:
        """A view [count, H, keys, ...] of the keys of a tensor [T, H, ...]."""
        return self.segments(tensor)[:, self.left : self.right].transpose(1, 2)

    def segments(self, tensor: Tensor) -> Tensor:
        """A view [count, length, ...] of all tokens of the segments."""
        tokens = tensor[self.first : self.first + self.count * self.length]
        return tokens.view(self.count, self.length, *tensor.shape[1:])


def pieces_of(runs: Runs, heads: int, options: AttentionOptions, *, bounded: bool) -> Iterator[Piece]:
    """The pieces of all runs. bounded: none has more than `SCORES` scores, unless one row of a segment has more."""
    for first, count, length in runs.runs:
        height = min(length, WINDOW_ROWS) if options.narrows(length) else length
        together = count
        if bounded:
            rows = max(1, SCORES // (heads * length))
            height = min(height, rows)
            together = max(1, rows // length) if height == length else 1
        for segment in range(0, count, together):
            number = min(together, count - segment)
            for top in range(0, length, height):
                bottom = min(length, top + height)
                left, right = _keys(top, bottom, length, options)
                yield Piece(first + segment * length, number, length, top, bottom, left, right)


def _keys(top: int, bottom: int, length: int, options: AttentionOptions) -> tuple[int, int]:
    """The keys that some row from `top` to `bottom` sees."""
    reach = options.window - 1 if options.narrows(length) else length
    return max(0, top - reach), bottom if options.causal else min(length, bottom + reach)
