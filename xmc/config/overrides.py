"""Values of the configuration in the order in which they are given: a file's, then `key=value` settings, of old keys too."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xmc.config.keys import GONE, NEW_KEYS, TEXTS, as_written, family_part
from xmc.config.negatives import NEGATIVES_SECTIONS
from xmc.config.yaml_values import read_yaml
from xmc.errors import ConfigError
from xmc.registry import nearest

__all__ = ["Values", "parse_override"]

OLD_SECTIONS = frozenset(key.rpartition(".")[0] for key in NEW_KEYS) - {""}


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split `a.b=value` into (["a", "b"], value), the value read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"The setting {text!r} must have the form key=value, as in encoder.dimension=512.")
    return key.strip().split("."), read_yaml(value, f"The value of the setting {key} is not valid YAML")


class Values:
    """Nested values, into which further ones are put by their dotted keys.

    Options of a kind that is not chosen are kept apart, and are those of the kind where it is chosen later: so
    `--set negatives=bank` finds what the file says of the bank.
    """

    def __init__(self, source: str, kinds: Mapping[str, str], plain: Mapping[str, str]) -> None:
        """source: what is read, for messages. kinds, plain: from `default_kinds` and `plain_values` of the configuration."""
        self.source, self.default_kinds, self.plain = source, kinds, plain
        self.renamed: dict[str, str] = {}
        """Old keys that were read, and their new ones."""
        self._old_warmup: dict[str, Any] = {}
        self._tree: dict[str, Any] = {}
        self._options: dict[tuple[str, str], dict[str, Any]] = {}

    def update(self, values: Mapping[str, Any]) -> None:
        """Put a whole mapping, such as a file's."""
        items = list(_old_first({str(key): value for key, value in values.items()}, self.source))

        def rank(item: tuple[str, Any]) -> int:
            """Sections first, into which plain values are put; then kinds, whose options are put into them."""
            if isinstance(item[1], Mapping) and item[0] not in self.default_kinds:
                return 0
            return 1 if item[0] in self.default_kinds or NEW_KEYS.get(item[0]) in self.default_kinds else 2

        for key, value in sorted(items, key=rank):
            self.put(key.split("."), value)

    def put(self, keys: Sequence[str], value: Any) -> None:
        """Put one value. Raises ConfigError for an old option that is gone, and a key that reaches into a plain value."""
        key = ".".join(keys)
        if key in OLD_SECTIONS:
            for inner, item in _old_first({key: value}, self.source):
                self.put(inner.split("."), item)
        elif key in NEW_KEYS or keys[0] in OLD_SECTIONS:
            self._put_old(key, value)
        elif key == "negatives" and isinstance(value, str) and "+" in value:
            self.renamed[f"negatives: {value}"] = f"negatives: [{', '.join(value.split('+'))}]"
            self._choose("negatives", value.split("+"))
        else:
            self._put_new(key, value)

    def mapping(self) -> dict[str, Any]:
        """All values, nested, in the keys of this version."""
        return copy.deepcopy(self._tree)

    def _put_old(self, key: str, value: Any) -> None:
        if key not in NEW_KEYS:
            near = nearest(key, NEW_KEYS)
            hint = f" Did you mean {near!r}, which is called {as_written(NEW_KEYS[near] or near)} now?" if near else ""
            raise ConfigError(f"{self.source} has the unknown key {key!r}.{hint}")
        new = NEW_KEYS[key]
        if new is None:
            if value != GONE[key]:
                raise ConfigError(f"{self.source}: {key} is gone, as no run ever used it; leave it out.")
            return
        if key in ("warmup", "warmup_steps"):
            self._put_old_warmup(key, value)
            return
        if key == TEXTS:
            value = "auto"
        parts = family_part(new)
        if parts is None:
            self.renamed[key] = new
            self._put_new(new, value)
            return
        family, kind, name = parts
        section = self._chosen(family, kind)
        if section is not None:
            self.renamed[key] = as_written(new)
        self._set(self._options.setdefault((family, kind), {}) if section is None else section, name, value, key)
        if key == "margin.negatives":
            prototypes = self._chosen("label_vectors", "prototypes")
            target = self._options.setdefault(("label_vectors", "prototypes"), {}) if prototypes is None else prototypes
            target["regularisation_negatives"] = value
            if prototypes is not None:
                self.renamed[key] = f"{as_written(new)} and label_vectors.regularisation_negatives"

    def _put_old_warmup(self, key: str, value: Any) -> None:
        """A share of all steps, or a whole number of them, which goes before a share whichever is given first."""
        if key == "warmup_steps" and value is not None and type(value) is not int:
            raise ConfigError(f"{self.source}: warmup_steps must be of type int, but is {value!r}.")
        if key == "warmup" and type(value) is int:
            value = float(value)  # it was a share, and a whole number is steps now
        had_steps = self._old_warmup.get("warmup_steps") is not None
        self._old_warmup[key] = value
        if self._old_warmup.get("warmup_steps") is not None:
            self._put_new("optimizer.warmup", self._old_warmup["warmup_steps"])
        elif "warmup" in self._old_warmup:
            self._put_new("optimizer.warmup", self._old_warmup["warmup"])
        elif had_steps and isinstance(_get(self._tree, "optimizer"), dict):
            self._tree["optimizer"].pop("warmup", None)
        if value is not None:
            self.renamed[key] = NEW_KEYS[key] or ""

    def _put_new(self, key: str, value: Any) -> None:
        family = next((name for name in self.default_kinds if key == name or key.startswith(name + ".")), None)
        if family is None or key == family:
            if family is not None:
                self._choose(family, value)
            elif isinstance(value, Mapping):
                self._put_section(key, value)
            else:
                self._set(self._tree, f"{key}.{self.plain[key]}" if key in self.plain else key, value, key)
            return
        name = key[len(family) + 1 :]
        if family == "negatives":
            kind, _, name = name.partition(".")
            section = self._chosen(family, kind)
            if section is None and kind in NEGATIVES_SECTIONS:
                raise ConfigError(
                    f"The setting {key} is of negatives that are not chosen; set negatives={kind} too, or leave it out."
                )
            if section is None or not name:
                chosen = self._kinds(family)
                raise ConfigError(
                    f"The setting {key} must name a kind of negatives that is chosen ({', '.join(chosen)}) and a key of it, "
                    f"as in negatives.bank.hard=8."
                )
            self._set(section, name, value, key)
        elif name == "kind":
            self._choose(family, value)
        else:
            kinds = self._kinds(family)
            if _get(self._tree, family) is None:
                self._choose(family, kinds[0])
            section = _get(self._tree, family)
            if not isinstance(section, dict):
                raise _reaches(key, family.rpartition(".")[2])
            self._set(section, name, value, key)

    def _put_section(self, key: str, values: Mapping[str, Any]) -> None:
        """A mapping in place of what was there, whose inner sections by kind are put as such."""
        inner = [family for family in self.default_kinds if family.startswith(key + ".")]
        if not inner:
            self._set(self._tree, key, copy.deepcopy(dict(values)), key)
            return
        names = {family.rpartition(".")[2]: family for family in inner}
        before = _get(self._tree, key)
        self._set(self._tree, key, before if isinstance(before, dict) else {}, key)
        for name in [name for name in (before if isinstance(before, dict) else {}) if name not in names]:
            del before[name]
        for name, value in values.items():
            self._put_new(f"{key}.{name}", value)

    def _choose(self, family: str, value: Any) -> None:
        """Set a section by kind, or the list of them; a kind alone has the options that were given for it."""
        for section in self._sections(family):
            options = {name: item for name, item in section.items() if name != "kind"}
            self._options[family, str(section.get("kind", self.default_kinds[family]))] = options
        if family == "negatives":
            chosen: Any = [
                self._named(family, item) for item in (value if isinstance(value, (list, tuple)) else [value])
            ]
        else:
            chosen = self._named(family, value)
        self._set(self._tree, family, chosen, family)

    def _named(self, family: str, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value, **self._options.get((family, value), {})}
        return copy.deepcopy(dict(value)) if isinstance(value, Mapping) else value

    def _chosen(self, family: str, kind: str) -> dict[str, Any] | None:
        """The section of a kind where it is chosen, by default or not."""
        if _get(self._tree, family) is None and kind == self.default_kinds[family]:
            self._choose(family, kind)
        sections = self._sections(family)
        return next((section for section in sections if section.get("kind", self.default_kinds[family]) == kind), None)

    def _sections(self, family: str) -> list[dict[str, Any]]:
        value = _get(self._tree, family)
        return [section for section in (value if isinstance(value, list) else [value]) if isinstance(section, dict)]

    def _kinds(self, family: str) -> list[str]:
        return [str(section.get("kind", self.default_kinds[family])) for section in self._sections(family)] or [
            self.default_kinds[family]
        ]

    def _set(self, tree: dict[str, Any], name: str, value: Any, key: str) -> None:
        """Set a dotted name inside of a tree; ConfigError names the whole key where it reaches into a plain value."""
        *parents, last = name.split(".")
        node, path = tree, key.split(".")[: -len(name.split("."))]
        for parent in parents:
            path = [*path, parent]
            inner = node.get(parent, {})
            if not isinstance(inner, Mapping):
                short = self.plain.get(".".join(path))
                if short is None:
                    raise _reaches(key, parent)
                inner = {short: inner}
            node[parent] = dict(inner)
            node = node[parent]
        node[last] = value


def _old_first(values: Mapping[str, Any], source: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, where the sections of older versions are divided into their keys."""
    for name, value in values.items():
        key = prefix + str(name)
        if key not in OLD_SECTIONS:
            yield key, value
        elif isinstance(value, Mapping):
            yield from _old_first(value, source, key + ".")
        else:
            raise ConfigError(f"{source}: {key} must be a section of keys, but is {value!r}.")


def _get(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _reaches(key: str, name: str) -> ConfigError:
    return ConfigError(f"The setting {key} reaches into {name!r}, which holds no further keys.")
