"""Sizes in FAISS's factory strings and search parameters, refused by arithmetic before FAISS allocates anything for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from xmc.errors import ConfigError

__all__ = ["MOST_DIMENSION", "TRAINING_ROWS", "require_modest_design", "require_modest_parameters"]

TRAINING_ROWS = 262_144
"""FAISS learns cells and codebooks from this number of rows at most, spread evenly over all."""
MOST_DIMENSION = 1 << 20
"""Numbers of an embedding at most."""
LONGEST_STRING = 200
"""Characters of a factory string at most: FAISS reads brackets inside of brackets by recursion."""
MOST_LINKS = 1024
"""Links of a label in a graph at most; FAISS's own examples have 16 to 64."""
MOST_BITS = 16
"""Bits of one code of a quantizer at most: each takes the memory of a vector for each of its 2^bits values."""
MOST_NUMBER = 65_536
"""Any other number in a factory string at most."""
MOST_EMPTY_BYTES = 8 * 2**30
"""Memory of an index before it holds a label, at most."""
MOST_EFFORT = 1 << 24
"""A search parameter at most: FAISS sets memory apart for this number of candidates in each thread."""
MOST_FACTOR = 1000
"""The multiple of the labels asked for that a "Refine" stage orders again, at most."""

_TOKEN = re.compile(r"([A-Za-z]+)(\d+(?:x\d+)*)?(?:_(\d+))?", re.ASCII)
_GRAPHS = ("HNSW", "NSG", "NNDescent", "CAGRA")
_ROTATIONS = ("OPQ", "PCA", "PCAR", "PCAW", "PCAWR", "ITQ", "RR", "Pad")
_CODEBOOKS = ("PQ", "RQ", "LSQ", "PRQ", "PLSQ", "IMI")


def require_modest_design(factory: object, dimension: int) -> None:
    """Raise ConfigError for a factory string, or a dimension, that would make an index which no machine holds."""
    if not isinstance(factory, str):
        return  # the factory says what it takes
    if not 1 <= dimension <= MOST_DIMENSION:
        raise ConfigError(
            f"Embeddings of {dimension} numbers cannot be indexed; an embedding has 1 to {MOST_DIMENSION:,}."
        )
    if len(factory) > LONGEST_STRING:
        raise ConfigError(
            f"An index design has {LONGEST_STRING} characters at most, but {factory!r:.60} has {len(factory):,}."
        )
    for number in re.findall(r"\d+", factory):
        if len(number) > 9:
            raise ConfigError(
                f"The number {number:.30} in the index design {factory!r} is larger than any that is of use."
            )
    empty = sum(_bytes_of_token(factory, dimension, *token.groups()) for token in _TOKEN.finditer(factory))
    if empty > MOST_EMPTY_BYTES:
        raise ConfigError(
            f"The index design {factory!r} in dimension {dimension:,} takes {empty / 2**30:,.0f} GiB of memory before it holds "
            f"a label; the most is {MOST_EMPTY_BYTES // 2**30} GiB. Choose smaller numbers."
        )


def require_modest_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError for a search parameter that is no number from 1 to what a search can use."""
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"The search parameter {name} must be a number, but is {value!r:.100}.")
        if value < 1:
            raise ConfigError(f"The search parameter {name} must be at least 1, but is {value}.")
        most = MOST_FACTOR if str(name).startswith("k_factor") else MOST_EFFORT
        if value > most:
            raise ConfigError(f"The search parameter {name} must be at most {most:,}, but is {value}.")


def _bytes_of_token(factory: str, dimension: int, name: str, numbers: str | None, further: str | None) -> int:
    """Memory that one part of a factory string takes before there are labels; ConfigError for numbers out of bounds."""
    sizes = [int(number) for number in (numbers or "").split("x") if number]
    if name == "IVF":
        _require(factory, sizes, TRAINING_ROWS, f"cells, for they are learned from {TRAINING_ROWS:,} labels at most")
        return sum(size * (48 + 4 * dimension) for size in sizes)
    if name in _GRAPHS:
        _require(factory, sizes, MOST_LINKS, "links a label")
        return 0
    _require(factory, [*sizes, int(further or 0)], MOST_NUMBER, "in this place")
    if name in _ROTATIONS:
        return 4 * dimension * max([*sizes, int(further or 0), dimension if name in ("ITQ", "OPQ") else 1])
    if name not in _CODEBOOKS:
        return 0
    bits = sizes[-1] if len(sizes) > 1 else 8
    _require(factory, [bits], MOST_BITS, "bits a code")
    if name == "IMI":
        cells = sizes[0] * bits
        _require(factory, [cells], 24, "bits for all cells together")
        return 48 << cells
    books = math.prod(sizes[:-1]) if name != "PQ" and len(sizes) > 1 else 1
    return 4 * dimension * books << bits


def _require(factory: str, sizes: list[int], most: int, what: str) -> None:
    for size in sizes:
        if size > most:
            raise ConfigError(f"The index design {factory!r} has {size:,}, where {most:,} {what} is the most.")
