"""A configuration as YAML for people: every key with its value, and above it what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from xmc.config.explain import ExplainedKey, explained_keys
from xmc.config.section import Section
from xmc.config.training import TrainConfig

__all__ = ["commented_yaml"]

WIDTH = 100


def commented_yaml(config: TrainConfig) -> str:
    """YAML that `TrainConfig.load` reads as the same configuration, with type, bounds, default and meaning of each key."""
    meanings = {(key.name, key.kind): key for key in explained_keys()}
    lines = ["# Every key of a configuration of xmc, with what it means. Those that are as they were can be left out."]
    for line in _lines(config, "", "", "", meanings):
        if (line[:1] == "#" and lines[-1][:1] != "#") or not lines[1:]:
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _lines(
    section: Section, prefix: str, kind: str, indent: str, meanings: dict[tuple[str, str], ExplainedKey]
) -> Iterator[str]:
    """The lines of a section's keys. prefix: of their dotted names. kind: of the section, "" where all have its keys."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        key = meanings.get((prefix + name, kind)) or meanings.get((prefix + name, ""))
        if key is not None:
            yield from _comment(key, indent)
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{prefix}{name}.", _kind_of(value, kind), indent + "  ", meanings)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            yield f"{indent}{name}:"
            for item in value:
                inner = _lines(
                    item, f"{prefix}{name}.{_kind_of(item, kind)}.", _kind_of(item, kind), indent + "    ", meanings
                )
                yield from _as_item(inner, indent)
        else:
            yield from _written({name: value}, indent)


def _kind_of(section: Section, outer: str) -> str:
    return str(getattr(section, "kind", outer))


def _as_item(lines: Iterator[str], indent: str) -> Iterator[str]:
    """The lines of a section as an item of a list: its first line, the kind, follows the dash."""
    first = next(lines)
    yield f"{indent}  - {first.strip()}"
    yield from lines


def _comment(key: ExplainedKey, indent: str) -> Iterator[str]:
    facts = ", ".join(filter(None, (key.type, key.bounds, f"default {key.default}" if key.default else "")))
    text = f"{key.meaning} ({facts})" if facts != "a section" else key.meaning
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_long_words=False
    )


def _written(values: dict[str, Any], indent: str) -> Iterator[str]:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    flow = None if any(isinstance(value, list) for value in plain.values()) else False  # lists stand in one line
    text = yaml.safe_dump(plain, default_flow_style=flow, width=10_000, allow_unicode=True, sort_keys=False)
    yield from (indent + line for line in text.splitlines())
