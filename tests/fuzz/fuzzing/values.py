"""JSON values damaged in their structure: a value somewhere inside becomes another, is gone, doubled, or nested deeply."""

from __future__ import annotations

import copy
import json
from typing import Any

from fuzzing.damage import Random

__all__ = ["damaged_json", "damaged_value", "odd_value"]

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 1.5, 2**31, -(2**31), 2**53, 2**63, 2**64, 10**30, -(10**25), 1e308, 1e-320),
    *("", " ", "\x00", "\ud800", "a" * 3000, "../../etc/passwd", "/dev/zero", "\x1b[31m", "\u202e", "é", "1", "true"),
    *("HNSW99999999", "Flat", "IVF1,PQ2x4fs", "float64", "cuda", "auto", "static", "transformer", "residual", "=1+1"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], ["a"], {"a": {"b": []}}, [10**18] * 3),
]


def odd_value(chance: Random) -> Any:
    """A value that is probably out of place."""
    if chance.random() < 0.02:
        return _nested(chance.choice([60, 300]), chance)
    return copy.deepcopy(chance.choice(ODD))


def damaged_value(value: Any, chance: Random) -> Any:
    """A value of JSON with a change at one place inside; itself where it is nested too deeply to be copied."""
    try:
        path = chance.choice(list(_paths(value)))
        value = copy.deepcopy(value)
    except RecursionError:
        return value
    if not path:
        return odd_value(chance)
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    _change(inside, path[-1], chance)
    return value


def damaged_json(content: bytes, chance: Random) -> bytes | None:
    """The bytes of JSON, or of lines of JSON, with one value changed; None for what is neither."""
    lines = content.splitlines(keepends=True)
    try:
        if len(lines) > 1 and lines[0].strip().startswith(b"{") and lines[0].strip().endswith(b"}"):
            row = chance.randrange(len(lines))
            lines[row] = _written(damaged_value(json.loads(lines[row]), chance), chance) + b"\n"
            return b"".join(lines)
        return _written(damaged_value(json.loads(content), chance), chance)
    except (ValueError, RecursionError):
        return None


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Any:
    yield before
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in entries:
        yield from _paths(inside, (*before, key))


def _change(inside: Any, key: Any, chance: Random) -> None:
    kind = chance.choice(["odd", "odd", "odd", "gone", "moved", "number", "again"])
    old = inside[key]
    if kind == "gone":
        del inside[key]
    elif kind == "moved" and isinstance(inside, dict):
        inside[str(key) + chance.choice(["x", " ", "\x00", ""])] = inside.pop(key)
    elif kind == "number" and isinstance(old, (int, float)) and not isinstance(old, bool):
        inside[key] = chance.choice([-old, old + 1, old - 1, old * 1000, float(old), str(old), old * 10**12])
    elif kind == "again" and isinstance(inside, list):
        inside.extend([old] * chance.choice([1, 2, 50]))
    elif kind == "again" and isinstance(old, str):
        inside[key] = old * chance.choice([2, 100])
    else:
        inside[key] = odd_value(chance)


def _nested(depth: int, chance: Random) -> Any:
    value: Any = 1
    kind = chance.choice(["list", "dict"])
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def _written(value: Any, chance: Random) -> bytes:
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    if chance.random() < 0.05:  # nested more deeply than json writes
        depth = chance.choice([500, 20_000, 200_000])
        mark = chance.choice(["[]", "{}"])
        deep = ('{"a":' if mark == "{}" else "[") * depth + "1" + ("}" if mark == "{}" else "]") * depth
        text = text.replace(chance.choice(["null", "1", '""', "0", "true"]), deep, 1)
    return text.encode("utf-8", "surrogatepass")
