"""Long texts as passages: how they are cut, and how a label's scores with the passages become one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from xmc.arrays import Embeddings, Ids
from xmc.encoders.base import Encoder
from xmc.errors import InputError

__all__ = ["Combine", "PassageOptions", "combined", "cut", "require_combination", "strongest"]

Combine: TypeAlias = Literal["logmeanexp", "max", "sum"]
"""How the scores of a label with P passages become one score: the largest, their sum, or temperature times the logarithm of the
mean of exp(score / temperature), which lies between the mean and the largest."""
COLDEST = 1e-6
"""The lowest temperature, and 1 divided by the highest: beyond them float32 has no such numbers, and scores were NaN."""
MOST_PASSAGES = 65_536
"""Number of passages that one text may be cut into."""


@dataclass(frozen=True)
class PassageOptions:
    """How long texts are cut into passages, and how these are combined.

    tokens: length of a passage, in tokens of the run's tokenizer, or in words where its encoder has none. stride: number of
    tokens from the begin of a passage to that of the next; a smaller one than `tokens` lets them overlap. By default three
    quarters of `tokens`. combine, temperature: see xmc.search.queries.Query.

    Raises InputError for numbers below 1, a stride above `tokens`, and as `Query`.

    >>> PassageOptions(tokens=32).stride
    24
    """

    tokens: int = 64
    stride: int | None = None
    combine: Combine = "logmeanexp"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        tokens = _require_number(self.tokens, "tokens")
        stride = max(1, 3 * tokens // 4) if self.stride is None else _require_number(self.stride, "stride")
        object.__setattr__(self, "stride", stride)
        if stride > tokens:
            raise InputError(
                f"A stride of {self.stride} leaves out what stands between passages of {self.tokens} tokens; let it be at most "
                f"{self.tokens}."
            )
        require_combination(self.combine, self.temperature)

    def describe(self) -> dict[str, Any]:
        """JSON values by name."""
        return asdict(self)


def _require_number(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"The {name} of passages must be a whole number from 1 on, but is {value!r}.")
    return int(value)


def require_combination(combine: Any, temperature: Any) -> float:
    """The temperature as a float; InputError for another way to combine than those of `Combine`, or one out of its bounds."""
    if combine not in get_args(Combine):
        raise InputError(f"combine must be one of {', '.join(get_args(Combine))}, but is {combine!r}.")
    try:
        number = float(temperature)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"The temperature of passages must be a number, but is {temperature!r}.") from error
    if not COLDEST <= number <= 1 / COLDEST:
        raise InputError(
            f"The temperature of passages must be above 0, from {COLDEST} to {1 / COLDEST}, but is {number}."
        )
    return number


def cut(text: str, options: PassageOptions, encoder: Encoder) -> list[str]:
    """The passages of a text, in their order: all of it is in one of them, but for blanks around. One without words is whole.

    encoder: of queries, whose tokens are counted. Raises InputError for passages that are longer than the encoder reads, and
    for a text of more than `MOST_PASSAGES` passages.
    """
    room = encoder.longest_text
    if room is not None and options.tokens > room:
        raise InputError(
            f"The encoder reads {room} tokens of a text, and would cut passages of {options.tokens}; let tokens be {room}."
        )
    spans = encoder.spans(text)
    if not len(spans):
        return [text]
    stride = options.stride or options.tokens
    count = 1 + max(0, math.ceil((len(spans) - options.tokens) / stride))
    if count > MOST_PASSAGES:
        raise InputError(
            f"A text of {len(spans):,} tokens has {count:,} passages, more than {MOST_PASSAGES:,}; give it in parts, or let "
            f"tokens and stride be larger: {text[:60]!r}..."
        )
    firsts = np.arange(count) * stride
    lasts = np.minimum(firsts + options.tokens, len(spans)) - 1
    return [text[begin:end] for begin, end in zip(spans[firsts, 0].tolist(), spans[lasts, 1].tolist(), strict=True)]


def combined(scores: Embeddings, combine: str, temperature: float) -> Embeddings:
    """One score for each label, float32 [C], of its scores with P passages, float32 [P, C]; -inf where one is -inf."""
    reduced: Embeddings = _REDUCTIONS[combine](scores, temperature).astype(np.float32)
    reduced[~np.isfinite(scores).all(axis=0)] = -np.inf
    return reduced


def _log_mean_exp(scores: Embeddings, temperature: float) -> Any:
    largest = np.maximum(scores.max(axis=0), np.finfo(np.float32).min)
    shifted = np.exp((scores - largest) / np.float32(temperature))
    return largest + temperature * np.log(shifted.mean(axis=0, dtype=np.float64).clip(np.finfo(np.float64).tiny))


def strongest(ids: Ids, scores: Embeddings, combine: str, temperature: float, count: int) -> Ids:
    """The labels with the `count` best combined scores among those that P passages were found to have, ids ascending.

    combine: "max"; anything else is taken for "logmeanexp", as sums are searched for by one vector.

    ids, scores: [P, m], -1 for none, best first. A passage whose list lacks a label counts as if it scored it as the last of
    its list, the highest that it can be; where there are no more labels than `count`, all are returned.
    """
    there = ids >= 0
    labels, places = np.unique(ids[there], return_inverse=True)
    if len(labels) <= count:
        return labels
    found, last = scores.astype(np.float64), np.where(there, scores, np.inf).min(axis=1, initial=np.inf)
    if combine == "max":
        strength = np.full(len(labels), -np.inf)
        np.maximum.at(strength, places, found[there])
    else:
        top = found[there].max()
        found, last = np.exp((found - top) / temperature), np.exp((last - top) / temperature)
        strength = np.bincount(places, (found - last[:, None])[there])
    return np.sort(labels[np.argsort(-strength, kind="stable")[:count]])


_REDUCTIONS: dict[str, Callable[[Embeddings, float], Any]] = {
    "logmeanexp": _log_mean_exp,
    "max": lambda scores, _: scores.max(axis=0),
    "sum": lambda scores, _: scores.sum(axis=0, dtype=np.float64),
}
