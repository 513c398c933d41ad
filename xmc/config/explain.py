"""What each key of the configuration means, from the docstrings of its fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xmc.config.keys import NEW_KEYS, as_written, family_part
from xmc.config.kinds import family_of
from xmc.config.mistakes import bounds, type_name
from xmc.config.training import TrainConfig
from xmc.errors import ConfigError
from xmc.registry import nearest

__all__ = ["ExplainedKey", "explain", "explained_keys"]


@dataclass(frozen=True)
class ExplainedKey:
    """A key of the configuration.

    name: dotted, as in `xmc train --set`. kind: the kind of the section that has the key; "" where all have it.
    type, bounds, default: as texts; bounds are "" where there are none, and default is "" where the key must be given.
    """

    name: str
    kind: str
    type: str
    bounds: str
    default: str
    meaning: str


def explained_keys() -> list[ExplainedKey]:
    """Every key and section, each section before its keys, the keys of each registered kind one after another."""
    return list(_keys(TrainConfig, "", ""))


def explain(key: str | None = None) -> tuple[list[ExplainedKey], str]:
    """What to print of a key, of a section with all of its keys, or of all; and a note where the key is an old one.

    Raises ConfigError for a key that is none, with the nearest one.
    """
    known = explained_keys()
    if not key:
        return known, ""
    chosen = _named(known, key)
    if chosen:
        return chosen, ""
    old = {name: new for name, new in NEW_KEYS.items() if name == key or name.startswith(key + ".")}
    if old:
        new_names = [new for new in old.values() if new is not None]
        note = "; ".join(
            f"{name} is {'gone' if new is None else as_written(new) + ' now'}" for name, new in old.items()
        )
        return [item for new in new_names for item in _of_new(known, new)], note + "."
    names = [*{item.name for item in known}, *NEW_KEYS]
    last = [name for name in names if name.rpartition(".")[2] == key]
    near = nearest(key, names) or next(iter(last), None)
    hint = f"Did you mean {near!r}?" if near else "`xmc config explain` lists all."
    raise ConfigError(f"There is no key {key!r} in the configuration. {hint}")


def _of_new(known: list[ExplainedKey], new: str) -> list[ExplainedKey]:
    """The keys that a new name of the table of keys stands for: those of its kind alone."""
    parts = family_part(new)
    return [item for item in _named(known, as_written(new)) if parts is None or item.kind in ("", parts[1])]


def _named(known: list[ExplainedKey], key: str) -> list[ExplainedKey]:
    return [item for item in known if item.name == key or item.name.startswith(key + ".")]


def _keys(section: type[BaseModel], prefix: str, kind: str) -> Iterator[ExplainedKey]:
    for name, field in section.model_fields.items():
        if name == "kind":
            continue
        meaning, dotted = " ".join((field.description or "").split()), prefix + name
        family, inner = family_of(field), _inner(field)
        if family is not None:
            many = get_origin(field.annotation) is tuple
            wanted = f"{'a list of sections, each' if many else 'a section,'} of the kind {', '.join(family.kinds)}"
            default = field.get_default()
            chosen = ", ".join(item.kind for item in (default if many else [default]))
            yield ExplainedKey(dotted, kind, wanted, "", chosen, meaning)
            for member, chosen_class in family.kinds.items():
                yield from _keys(chosen_class, f"{dotted}.{member}." if many else f"{dotted}.", member)
        elif inner is not None:
            yield ExplainedKey(dotted, kind, "a section", "", "", meaning)
            yield from _keys(inner, dotted + ".", kind)
        else:
            default = "" if field.is_required() else _written(field.get_default())
            yield ExplainedKey(dotted, kind, type_name(field.annotation), bounds(field), default, meaning)


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _written(value: object) -> str:
    """A default as one would write it in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else '""' if value == "" else str(value)
