"""Dataclasses from nested mappings, as YAML and the command line give them, checked before anything runs."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from xmc.errors import ConfigError

__all__ = ["dataclass_from_mapping", "merge_overrides", "parse_override"]

T = TypeVar("T")


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split `a.b=value` into (["a", "b"], value), the value read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"The setting {text!r} must have the form key=value, as in static.dimension=512.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"The value of the setting {text!r} is not valid YAML.") from error
    if isinstance(parsed, str):  # YAML 1.1 reads 5e-3 as a string
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return key.strip().split("."), parsed


def dataclass_from_mapping(kind: type[T], values: Mapping[str, Any], source: str, prefix: str = "") -> T:
    """Build a dataclass from a mapping; ConfigError names the key, the nearest known key and the wanted type."""
    hints = get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f" Did you mean {prefix + near[0]!r}?" if near else f" Known keys: {', '.join(hints)}."
            raise ConfigError(f"{source} has the unknown key {prefix + str(key)!r}.{hint}")
        arguments[key] = _convert(hints[key], value, source, prefix + key)
    return kind(**arguments)


def _convert(wanted: Any, value: Any, source: str, key: str) -> Any:
    origin, choices = get_origin(wanted), get_args(wanted)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        if isinstance(value, Mapping):
            return dataclass_from_mapping(wanted, value, source, key + ".")
    elif origin in (Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        (inner,) = [choice for choice in choices if choice is not type(None)]
        return _convert(inner, value, source, key)
    elif origin is Literal:
        if value in choices and isinstance(value, str):
            return value
        raise ConfigError(f"{source}: {key} must be one of {', '.join(map(str, choices))}, but is {value!r}.")
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_convert(choices[0], item, source, key) for item in value)
    elif wanted is float:
        number = _as_float(value)
        if number is not None:
            return number
    elif isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    name = getattr(wanted, "__name__", str(wanted))
    if origin is tuple:
        name = "a list of texts" if choices[0] is str else "a list of numbers"
    raise ConfigError(f"{source}: {key} must be of type {name}, but is {value!r}.")


def _as_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def merge_overrides(values: Mapping[str, Any], overrides: Sequence[tuple[list[str], Any]]) -> dict[str, Any]:
    """Nested mappings with some values in place of others; ConfigError where a key reaches into a plain value."""
    merged = dict(values)
    for keys, value in overrides:
        node = merged
        for key in keys[:-1]:
            inner = node.get(key, {})
            if not isinstance(inner, Mapping):
                raise ConfigError(f"The setting {'.'.join(keys)} reaches into {key!r}, which holds no further keys.")
            node[key] = dict(inner)
            node = node[key]
        node[keys[-1]] = value
    return merged
