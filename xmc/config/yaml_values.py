"""YAML as the configuration reads it: plain values only, each key once, and no more of anything than a person writes."""

from __future__ import annotations

from typing import Any

import yaml

from xmc.errors import ConfigError, boundary

__all__ = ["LONGEST_DOCUMENT", "read_yaml"]

LONGEST_DOCUMENT = 1 << 18
"""Characters of a document; a configuration with every key and its meaning has some 20,000."""
DEEPEST = 50
"""Levels of nesting."""
MOST_VALUES = 50_000
"""Values of a document, those that aliases repeat counted each time."""
CHARACTERS = 64
"""Of a text that count as a further value."""
LONGEST_NUMBER = 400
"""Characters of a number."""


class _PlainLoader(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys without a word; here they are an error. Aliases are counted, not followed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._open: set[int] = set()
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node, within the bound on nesting."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth == DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it is nested deeper than {DEEPEST} levels", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The document, within the bound on what it stands for."""
        node = super().get_single_node()
        if node is not None and self._size(node) > MOST_VALUES:
            message = f"it has more than {MOST_VALUES:,} values, those that aliases repeat counted"
            raise yaml.composer.ComposerError(None, None, message, node.start_mark)
        return node

    def _size(self, node: yaml.Node) -> int:
        """The number of values that a node stands for; more than MOST_VALUES for one that holds itself."""
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // CHARACTERS
        if id(node) not in self._sizes:
            if id(node) in self._open:
                return MOST_VALUES + 1
            self._open.add(id(node))
            pairs = isinstance(node, yaml.MappingNode)
            inner = (item for pair in node.value for item in pair) if pairs else node.value
            self._sizes[id(node)] = 1 + sum(self._size(item) for item in inner)
        return self._sizes[id(node)]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, whose keys are different ones."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """The text of a value; a number is not longer than LONGEST_NUMBER, as reading it takes the square of its length."""
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > LONGEST_NUMBER:
            message = f"a number of {len(node.value):,} characters is longer than {LONGEST_NUMBER}"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return super().construct_scalar(node)


def read_yaml(text: str, what: str) -> Any:
    """The value of a YAML document.

    what: a sentence without its end that says what is read, such as "FILE is not valid YAML", which the cause follows.
    Raises ConfigError for text that is none, for a key that stands twice, and for a document that is longer, deeper or has more
    values than a configuration, those that aliases repeat counted.
    """
    with boundary(ConfigError, what):
        if len(text) > LONGEST_DOCUMENT:
            raise ValueError(f"it has {len(text):,} characters, and a configuration has {LONGEST_DOCUMENT:,} at most")
        loader = _PlainLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
