"""YAML as the configuration reads it: plain values only, and each key once."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["read_yaml"]


class _EachKeyOnce(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys without a word; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """The value of a YAML document. Raises yaml.YAMLError for text that is none, and for a key that stands twice."""
    try:
        return yaml.load(text, _EachKeyOnce)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
